// Embedding lookup: rows of a table, in float32, in int8 with a scale for each row, or of a packed dense weight, which
// a head that is tied to the table multiplies with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../formats/packed.h"

namespace sparsekit {

/// A table [rows, features]: `floats`, or `bytes` times `scales` [rows], or the values of a weight that is `packed`.
struct EmbeddingTable {
  const float* floats = nullptr;
  const std::int8_t* bytes = nullptr;
  const float* scales = nullptr;
  std::int64_t rows = 0;
  std::int64_t features = 0;
  const PackedHeader* packed = nullptr;
};

/// The rows (output features) of a weight that is packed in a layout `dense_*`. Throws std::invalid_argument for
/// another layout, and as `packed_header`.
EmbeddingTable packed_table(const std::byte* packed, std::size_t packed_bytes);

/// Throws std::invalid_argument where one of `count` ids is not from 0 to `table.rows - 1`; `name`: of what they are.
void check_ids(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, const char* name);

/// output[count, features] = the rows `ids` of the table, which are checked: values as floats, times the row's scale
/// where it has one.
void lookup_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output);

/// output += the same.
void add_embeddings(const EmbeddingTable& table, const std::int32_t* ids, std::int64_t count, float* output);

}  // namespace sparsekit
