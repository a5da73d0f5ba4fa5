#include "head.h"

#include <algorithm>
#include <cmath>

#include "../operators/layer_norm.h"

namespace sparsekit {
namespace {

/// output = activation(dense(input))
void activate_dense(const Head& head, const float* input, std::int64_t rows, float* output) {
  const bool is_tanh = head.activation == HeadActivation::tanh;
  const Activation activation = is_tanh ? Activation::none : static_cast<Activation>(head.activation);
  linear(linear_call(*head.dense, input, rows, output, activation));
  if (!is_tanh) return;
  float* const end = output + rows * head.dense->out_features;
  std::transform(output, end, output, [](float value) { return std::tanh(value); });
}

void apply_dense(const Head& head, const float* input, std::int64_t rows, float* output) {
  activate_dense(head, input, rows, output);
  if (!head.norm) return;
  add_layer_norm(
      {output, nullptr, output, rows, head.dense->out_features, head.norm->weight, head.norm->bias, head.norm_eps});
}

}  // namespace

std::int64_t Head::outputs() const {
  if (classifier) return classifier->out_features;
  return dense ? dense->out_features : features;
}

void apply_head(const Head& head, const float* input, std::int64_t rows, float* space, float* output) {
  if (!head.dense && !head.classifier) {
    std::copy_n(input, rows * head.features, output);
    return;
  }
  if (head.dense) apply_dense(head, input, rows, head.classifier ? space : output);
  if (head.classifier) linear(linear_call(*head.classifier, head.dense ? space : input, rows, output));
}

}  // namespace sparsekit
