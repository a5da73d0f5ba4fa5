#include "embedding.h"

#include <stdexcept>
#include <string>

#include "../formats/dense.h"
#include "../formats/dense_int4.h"
#include "../formats/values.h"

namespace sparsekit {
namespace {

template <class Write>
void write_floats(const EmbeddingTable& table, std::int64_t id, float* output, const Write& write) {
  const float* row = table.floats + id * table.features;
  for (std::int64_t f = 0; f < table.features; ++f) write(output[f], row[f]);
}

template <class Write>
void write_bytes(const EmbeddingTable& table, std::int64_t id, float* output, const Write& write) {
  const std::int8_t* row = table.bytes + id * table.features;
  const float scale = table.scales[id];
  for (std::int64_t f = 0; f < table.features; ++f) write(output[f], static_cast<float>(row[f]) * scale);
}

/// `Value`: what the packed weight holds.
template <class Value, class Write>
void write_packed_rows(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output,
                       const Write& write) {
  const PackedWeight weight = packed_view(*table.packed);
  const auto* values = static_cast<const Value*>(weight.values);
  const bool scaled = layout_entry(table.packed->layout).scaled;
  for (std::int64_t i = 0; i < count; ++i, output += table.features) {
    const float scale = scaled ? weight.scales[ids[i]] : 1.0F;
    for (std::int64_t f = 0; f < table.features; ++f) {
      write(output[f], to_float(values[dense_place<Value>(weight, ids[i], f)]) * scale);
    }
  }
}

template <class Write>
void write_int4_rows(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output,
                     const Write& write) {
  const PackedWeight weight = packed_view(*table.packed);
  for (std::int64_t i = 0; i < count; ++i, output += table.features) {
    for (std::int64_t f = 0; f < table.features; ++f) write(output[f], dense_int4_weight(weight, ids[i], f));
  }
}

template <class Write>
void for_packed_rows(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output,
                     const Write& write) {
  switch (layout_entry(table.packed->layout).dtype) {
    case DType::float32:
      return write_packed_rows<float>(table, ids, count, output, write);
    case DType::bfloat16:
      return write_packed_rows<BFloat16>(table, ids, count, output, write);
    case DType::float16:
      return write_packed_rows<Float16>(table, ids, count, output, write);
    case DType::int8:
      return write_packed_rows<std::int8_t>(table, ids, count, output, write);
    case DType::int4:
      return write_int4_rows(table, ids, count, output, write);
  }
}

/// Calls `write(element of output, value)` for every element of the rows.
template <class Write>
void for_rows(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output,
              const Write& write) {
  if (table.packed != nullptr) return for_packed_rows(table, ids, count, output, write);
  for (std::int64_t i = 0; i < count; ++i, output += table.features) {
    table.floats != nullptr ? write_floats(table, ids[i], output, write) : write_bytes(table, ids[i], output, write);
  }
}

}  // namespace

EmbeddingTable packed_table(const std::byte* packed, std::size_t packed_bytes) {
  const PackedHeader& header = packed_header(packed, packed_bytes);
  const LayoutEntry& layout = layout_entry(header.layout);
  if (layout.family != Family::dense) {
    throw std::invalid_argument("a table of embeddings must be packed in a layout dense_*, got " +
                                std::string(layout.name));
  }
  EmbeddingTable table;
  table.rows = header.out_features;
  table.features = header.in_features;
  table.packed = &header;
  return table;
}

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
