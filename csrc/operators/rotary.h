// Rotary position embeddings (Su et al., "RoFormer"): queries and keys turned by angles that grow with their position.
#pragma once

#include "sequences.h"

namespace sparsekit {

/// For each position a row of `head_dim` numbers: the cosines of its head_dim / 2 angles, then their sines.
struct RotaryTable {
  const float* rows = nullptr;
  std::int64_t positions = 0;  // 0: there is no table
  std::int64_t head_dim = 0;
};

/// Turns features `f` and `f + head_dim / 2` of every head by angle `f` of the token's position in its sequence;
/// input[tokens, heads * head_dim]. Sequences have at most `table.positions` tokens.
void rotate(const RotaryTable& table, std::int64_t heads, const Sequences& sequences, float* input);

}  // namespace sparsekit
