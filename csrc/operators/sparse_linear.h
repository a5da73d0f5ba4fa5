// Sparse linear layer on a packed weight: checks the call, picks kernels by the number of tokens, splits the work over
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../kernels/linear_args.h"

namespace sparsekit {

struct LinearCall {
  const std::byte* packed;
  std::size_t packed_bytes;
  const float* input;           // `tokens` rows of `input_features` floats, `input_stride` floats apart
  std::int64_t input_features;  // compared with the packed weight, as `output_features`
  std::int64_t input_stride;
  std::int64_t tokens;
  float* output;  // `tokens` rows of `output_features` floats, contiguous
  std::int64_t output_features;
  const float* bias;  // or null
  Activation activation;
};

/// output[tokens, out_features] = activation(input[tokens, in_features] @ weight.T + bias).
/// Throws std::invalid_argument for a buffer that is not a packed weight, features that differ from the weight's, a
/// negative number of tokens, a stride below the number of features, or an input that int8 values cannot be multiplied
/// with because it is not finite.
void linear(const LinearCall& call);

/// The same for at least one weight, all on one input, which is packed once for neighbors of the same layout. Throws as
/// above, for no weight, and for inputs that differ.
void joined_linear(const std::vector<LinearCall>& calls);

/// output[tokens, in_features] = input[tokens, out_features] @ weight: the gradient for the layer's input, given the
/// gradient of its output. Throws as above, for a bias or an activation function, and for int8 values.
void linear_input_gradient(const LinearCall& call);

}  // namespace sparsekit
