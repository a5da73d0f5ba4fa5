// Soft caps of attention scores (Gemma Team, "Gemma 2", 2024): they stay within the cap, and small ones as they are.
#pragma once

#include "attention_args.h"
#include "math.h"

namespace {

/// Scores as the head has them; `capped` where it has a soft cap, so that others do not ask for it at every vector.
template <bool capped>
[[gnu::always_inline]] inline Vec with_soft_cap(const sparsekit::AttentionHead& head, Vec score) {
  return capped ? Vec::broadcast(head.soft_cap) * tanh(score) : score;
}

}  // namespace
