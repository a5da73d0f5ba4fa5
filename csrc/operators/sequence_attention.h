// Attention of sequences without padding: every token sees its own sequence.
#pragma once

#include "sequences.h"

namespace sparsekit {

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
};

/// output = softmax(scale * query @ key^T) @ value, sequence by sequence and head by head. Sizes are checked by the
/// caller. The same bits for every number of threads.
void sequence_attention(const SequenceAttentionCall& call);

}  // namespace sparsekit
