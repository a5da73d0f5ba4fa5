#include "embedding.h"

#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

/// Calls `write(element of output, value)` for every element of the rows.
template <class Write>
void for_rows(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output,
              const Write& write) {
  for (std::int64_t i = 0; i < count; ++i, output += table.features) {
    const std::int64_t start = ids[i] * table.features;
    if (table.floats != nullptr) {
      const float* row = table.floats + start;
      for (std::int64_t f = 0; f < table.features; ++f) write(output[f], row[f]);
    } else {
      const std::int8_t* row = table.bytes + start;
      const float scale = table.scales[ids[i]];
      for (std::int64_t f = 0; f < table.features; ++f) write(output[f], static_cast<float>(row[f]) * scale);
    }
  }
}

}  // namespace

void check_ids(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, const char* name) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && ids[i] < table.rows) continue;
    throw std::invalid_argument(std::string(name) + " must be from 0 to " + std::to_string(table.rows - 1) + ", got " +
                                std::to_string(ids[i]) + " at " + std::to_string(i));
  }
}

void lookup_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output) {
  for_rows(table, ids, count, output, [](float& to, float value) { to = value; });
}

void add_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output) {
  for_rows(table, ids, count, output, [](float& to, float value) { to += value; });
}

}  // namespace sparsekit
