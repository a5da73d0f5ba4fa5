// Soft caps of attention scores (Gemma Team, "Gemma 2", 2024): they stay within the cap, and small ones as they are.
#pragma once

#include "attention_args.h"
#include "math.h"

namespace {

/// Scores of the head. `capped` is a template parameter, so that heads without a soft cap do not test for it.
template <bool capped>
[[gnu::always_inline]] inline Vec with_soft_cap(const sparsekit::AttentionHead& head, Vec score) {
  return capped ? Vec::broadcast(head.soft_cap) * tanh(score) : score;
}

}  // namespace
