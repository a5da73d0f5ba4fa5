// Attention of sequences without padding: every token sees its own sequence, or a window of it.
#pragma once

#include "sequences.h"

namespace sparsekit {

/// What each head adds to scores by distance: row[i - j + tokens - 1] to that of token `i` for token `j`.
struct DistanceBiases {
  const float* rows = nullptr;  // [heads, 2 * tokens - 1], or null
  std::int64_t heads = 0;
  std::int64_t tokens = 0;  // of the longest sequence
};

/// Tables of disentangled attention: query `i` times keys[row] and key `j` times queries[row] are added to their
/// product, with row = distance_rows[i - j + tokens - 1].
struct PositionTables {
  const float* keys = nullptr;                  // [rows, heads * head_dim], or null
  const float* queries = nullptr;               // as `keys`
  const std::int32_t* distance_rows = nullptr;  // [2 * tokens - 1]
  std::int64_t tokens = 0;                      // of the longest sequence
};

/// Heads of a token lie next to each other.
struct SequenceAttentionCall {
  const float* query;  // [tokens, heads * head_dim]
  const float* key;    // as `query`
  const float* value;  // [tokens, heads * value_dim]
  float* output;       // as `value`
  std::int64_t heads;
  std::int64_t head_dim;
  std::int64_t value_dim;
  Sequences sequences;
  float scale;
  DistanceBiases biases = {};
  std::int64_t window = 0;  // tokens on either side that a token sees; 0 for all
  PositionTables positions = {};
  bool first_tokens = false;  // those of sequences are the queries; other rows of `output` stay as they are

  /// Queries of sequence `i`.
  std::int64_t queries(std::int64_t i) const {
    return first_tokens ? (sequences.length(i) > 0 ? 1 : 0) : sequences.length(i);
  }
};

/// output = softmax(scale * (query @ key^T + positions) + biases) @ value, sequence by sequence and head by head. Sizes
/// are checked by the caller. The same bits for every number of threads.
void sequence_attention(const SequenceAttentionCall& call);

}  // namespace sparsekit
