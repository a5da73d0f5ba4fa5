// Weights of a model as operands of operators: views of a compiled file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../operators/sparse_linear.h"

namespace sparsekit {

struct LinearWeights {
  const std::byte* packed;
  std::size_t packed_bytes;
  std::int64_t out_features;
  std::int64_t in_features;
  const float* bias;  // or null
};

struct NormWeights {
  const float* weight;
  const float* bias;
};

/// The arguments of a linear layer over `tokens` contiguous rows.
inline LinearCall linear_call(const LinearWeights& weights, const float* input, std::int64_t tokens, float* output,
                              Activation activation = Activation::none) {
  return {weights.packed, weights.packed_bytes, input,        weights.in_features, weights.in_features, tokens,
          output,         weights.out_features, weights.bias, activation};
}

}  // namespace sparsekit
