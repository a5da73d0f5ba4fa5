// The feed-forward half of a transformer block.
#pragma once

#include <optional>

#include "weights.h"

namespace sparsekit {

/// output[tokens, features] = down(activation(up(x)) [* gate(x)]) of x[tokens, features]; `hidden` has room for
/// [tokens, up features], twice where there is a gate.
void feed_forward(const LinearWeights& up, const std::optional<LinearWeights>& gate, const LinearWeights& down,
                  Activation activation, const float* x, std::int64_t tokens, float* hidden, float* output);

}  // namespace sparsekit
