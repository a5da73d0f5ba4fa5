// Arguments of sparse linear kernels other than the weight: raw pointers and sizes, already checked.
#pragma once

#include <cstdint>

#include "range.h"

namespace sparsekit {

/// Applied to `sum + bias` when the result is stored.
enum class Activation : std::int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4 };

/// Where a tile's activation comes from: rows of a row-major activation `[tokens, in_features]`.
struct Input {
  const float* data;    // first token of the tile, input feature 0
  std::int64_t stride;  // floats between tokens
  std::int64_t tokens;  // valid tokens of the tile
};

/// Where finished sums go: rows of a row-major activation `[tokens, out_features]`.
struct Output {
  float* data;          // first token of the tile, output feature 0
  std::int64_t stride;  // floats between tokens
  std::int64_t tokens;  // valid tokens of the tile
  const float* bias;    // [out_features] or null
  Activation activation;
};

}  // namespace sparsekit
