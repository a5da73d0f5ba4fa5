// Arguments of attention kernels: raw pointers and sizes, already checked.
#pragma once

#include <cstdint>

#include "range.h"

namespace sparsekit {

/// Type of a mask's elements.
enum class MaskKind : std::int32_t {
  none = 0,
  added = 1,    // a float that is added to the score
  visible = 2,  // a byte, 0 where the query must not see the key
};

/// Keys per key block, whose scores are in working memory at a time.
inline constexpr std::int64_t kKeyBlock = 128;

/// Attention of one head of one sequence: rows of features that are contiguous, `stride` numbers from token to token.
/// Keys and values have the type that the kernel is for: float, BFloat16, or int8 with a scale for each row.
///
/// Query `i` sees the keys `[0, keys)`, or where `causal` those of them up to `i + diagonal`; with a `span` only the
/// last `span` of these, so that a window around a query is a diagonal beside it and a span.
struct AttentionHead {
  const float* query;         // [queries, head_dim]
  const void* key;            // [keys, head_dim]
  const void* value;          // [keys, value_dim]
  float* output;              // [queries, value_dim]
  const float* key_scales;    // of int8: [keys]
  const float* value_scales;  // as `key_scales`
  std::int64_t query_stride;
  std::int64_t key_stride;
  std::int64_t value_stride;
  std::int64_t output_stride;
  std::int64_t queries;
  std::int64_t keys;
  std::int64_t head_dim;
  std::int64_t value_dim;
  const void* mask;          // [queries, keys]
  std::int64_t mask_stride;  // entries between queries; 0 where all of them share a row
  MaskKind mask_kind;
  bool causal;
  std::int64_t diagonal;
  std::int64_t span;  // 0 for all keys; else at least 1, and `causal`
  const float* bias;  // added to the score of query `i` and key `j`: bias[i - j]; or null
  // Added to it before it is scaled, where there are such tables, with row = distance_rows[i - j]:
  const float* position_key;          // query `i` times position_key[row]
  const float* position_query;        // key `j` times position_query[row]
  std::int64_t position_stride;       // floats between rows of both
  const std::int32_t* distance_rows;  // null without both
  float scale;
  float soft_cap;  // scaled scores `s` become soft_cap * tanh(s) before biases and the mask; 0: they stay
};

}  // namespace sparsekit
