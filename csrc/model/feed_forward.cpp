#include "feed_forward.h"

#include "../operators/gate.h"

namespace sparsekit {

void feed_forward(const LinearWeights& up, const std::optional<LinearWeights>& gate, const LinearWeights& down,
                  Activation activation, const float* x, std::int64_t tokens, float* hidden, float* output) {
  const LinearCall activated = linear_call(up, x, tokens, hidden, activation);
  if (gate) {
    const std::int64_t numbers = tokens * up.out_features;
    joined_linear({activated, linear_call(*gate, x, tokens, hidden + numbers)});
    multiply_gate(hidden, hidden + numbers, numbers);
  } else {
    linear(activated);
  }
  linear(linear_call(down, hidden, tokens, output));
}

}  // namespace sparsekit
