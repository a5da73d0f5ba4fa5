// The activation functions that a kernel can apply while it stores, in torch's formulas.
#pragma once

#include "linear_args.h"
#include "math.h"

namespace {

inline Vec relu(Vec x) { return max(x, 0.0F); }

/// x / 2 * (1 + erf(x / sqrt(2)))
inline Vec gelu(Vec x) { return x * normal_cdf(x); }

/// x / (1 + exp(-x))
inline Vec silu(Vec x) { return x / (Vec::broadcast(1.0F) + exp(Vec::zero() - x)); }

/// 0.5 * (1 + tanh(y)) = 1 / (1 + exp(-2 y)), y = sqrt(2 / pi) * (x + 0.044715 x^3)
inline Vec gelu_tanh(Vec x) {
  const Vec inner = fma(x * x * x, Vec::broadcast(0.044715F), x);
  return x / (Vec::broadcast(1.0F) + exp(inner * Vec::broadcast(-1.59576912F)));
}

/// Calls `body` with the activation function, so that the choice is made once and not for every vector.
template <class Body>
inline void with_activation(sparsekit::Activation kind, const Body& body) {
  switch (kind) {
    case sparsekit::Activation::none:
      return body([](Vec x) { return x; });
    case sparsekit::Activation::relu:
      return body([](Vec x) { return relu(x); });
    case sparsekit::Activation::gelu:
      return body([](Vec x) { return gelu(x); });
    case sparsekit::Activation::gelu_tanh:
      return body([](Vec x) { return gelu_tanh(x); });
    case sparsekit::Activation::silu:
      return body([](Vec x) { return silu(x); });
  }
}

}  // namespace
