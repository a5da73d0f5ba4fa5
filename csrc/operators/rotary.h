// Rotary position embeddings, RoPE (Su et al., "RoFormer"): rotate queries and keys by angles proportional to their
// position.
#pragma once

#include "sequences.h"

namespace sparsekit {

/// For each position a row of `head_dim` numbers: the cosines of its head_dim / 2 angles, then their sines.
struct RotaryTable {
  const float* rows = nullptr;
  std::int64_t positions = 0;  // 0: there is no table
  std::int64_t head_dim = 0;
};

/// The heads to rotate; those of a token are adjacent.
struct RotaryCall {
  std::int64_t heads;
  std::int64_t head_dim;  // at least the table's: features behind those of the table stay as they are
  Sequences sequences;
  const std::int64_t* first_positions;  // [sequences], of the first token of each: those before it are in a cache; or
                                        // null where all are 0
  float* input;                         // [tokens, heads * head_dim]
};

/// Turns features `f` and `f + table.head_dim / 2` of every head by angle `f` of the token's position. Throws
/// std::invalid_argument for heads that are narrower than the table, and for positions that it has not.
void rotate(const RotaryTable& table, const RotaryCall& call);

}  // namespace sparsekit
