// Head on an encoder's pooled vectors, or on the hidden states of its tokens: up to two linear layers.
//
//   x = norm(activation(dense(x)))    where there is `dense`; it may have no norm
//   x = classifier(x)                 where there is a classifier
#pragma once

#include <optional>

#include "compiled_file.h"
#include "weights.h"

namespace sparsekit {

/// What a model computes besides hidden states.
enum class Task : std::int32_t {
  embedding = 0,             // a vector of each sequence, if the model pools
  classification = 1,        // logits of each sequence
  token_classification = 2,  // logits of each token
};

/// Of `dense`: the activation functions of linear layers, and tanh.
enum class HeadActivation : std::int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4, tanh = 5 };

struct Head {
  std::int64_t features = 0;  // of its input
  HeadActivation activation = HeadActivation::none;
  std::optional<LinearWeights> dense;
  std::optional<NormWeights> norm;
  float norm_eps = 0.0F;
  std::optional<LinearWeights> classifier;

  /// Features of its output.
  std::int64_t outputs() const;

  /// Floats of `space` for a row.
  std::int64_t space() const { return dense ? dense->out_features : 0; }
};

/// output[rows, outputs] of input[rows, features].
void apply_head(const Head& head, const float* input, std::int64_t rows, float* space, float* output);

}  // namespace sparsekit
