// Arguments of layer and root-mean-square normalization kernels: raw pointers and sizes, already checked.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Rows of two activations that are added, or of one, and what their sums are normalized with; all contiguous.
struct LayerNormRows {
  const float* input;  // [count, features]
  const float* added;  // [count, features] or null
  float* output;       // [count, features]
  std::int64_t count;
  std::int64_t features;
  const float* weight;  // [features] or null
  const float* bias;    // [features] or null
  float eps;
  float* sums = nullptr;  // where sums are kept, [count, features], or null; may be `input`
  bool centered = true;   // false: no mean is subtracted, as in RMSNorm
};

}  // namespace sparsekit
