// Sparse linear layer on a packed weight: checks the call, picks a kernel by batch, splits the work over threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../kernels/views.h"

namespace sparsekit {

struct LinearCall {
  const std::byte* packed;
  std::size_t packed_bytes;
  const float* input;           // batch rows of `input_features` floats, `input_stride` floats apart
  std::int64_t input_features;  // compared with the packed weight, as `output_features`
  std::int64_t input_stride;
  std::int64_t batch;
  float* output;  // batch rows of `output_features` floats, contiguous
  std::int64_t output_features;
  const float* bias;  // or null
  Activation activation;
};

/// output[batch, out_features] = activation(input[batch, in_features] @ weight.T + bias).
/// Throws std::invalid_argument for a buffer that is not a packed weight, features that differ from the weight's, a
/// negative batch, a stride below the number of features, or an input that int8 values cannot be multiplied with
/// because it is not finite.
void linear(const LinearCall& call);

/// The same for at least one weight, all of which hold their values alike, on one input, which is packed once for all
/// of them. Throws as above, and for weights that differ in this.
void joined_linear(const std::vector<LinearCall>& calls);

/// output[batch, in_features] = input[batch, out_features] @ weight: the gradient for the layer's input, given the
/// gradient of its output. Throws as above, for a bias or an activation function, and for int8 values.
void linear_input_gradient(const LinearCall& call);

}  // namespace sparsekit
