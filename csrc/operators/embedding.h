// Embedding lookup: rows of a table, in float32 or in int8 with a scale for each row.
#pragma once

#include <cstdint>

namespace sparsekit {

/// A table [rows, features]: `floats`, or `bytes` times `scales` [rows].
struct EmbeddingTable {
  const float* floats = nullptr;
  const std::int8_t* bytes = nullptr;
  const float* scales = nullptr;
  std::int64_t rows = 0;
  std::int64_t features = 0;
};

/// Throws std::invalid_argument where one of `count` ids is not from 0 to `table.rows - 1`; `name`: of what they are.
void check_ids(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, const char* name);

/// output[count, features] = the rows `ids` of the table, which are checked.
void lookup_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output);

/// output += the same.
void add_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output);

}  // namespace sparsekit
