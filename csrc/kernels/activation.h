// The activation functions that a kernel can apply while it stores, in torch's formulas.
#pragma once

#include "math.h"
#include "views.h"

namespace {

inline Vector relu(Vector x) { return at_least(x, 0.0F); }

inline Vector gelu(Vector x) {
  const Vector half_x = x * Vector::broadcast(0.5F);
  return half_x * (Vector::broadcast(1.0F) + erf(x * Vector::broadcast(0.70710678F)));
}

/// x / (1 + exp(-x))
inline Vector silu(Vector x) { return x / (Vector::broadcast(1.0F) + exp(Vector::zero() - x)); }

/// 0.5 * (1 + tanh(y)) = 1 / (1 + exp(-2 y)), y = sqrt(2 / pi) * (x + 0.044715 x^3)
inline Vector gelu_tanh(Vector x) {
  const Vector inner = fma(x * x * x, Vector::broadcast(0.044715F), x);
  return x / (Vector::broadcast(1.0F) + exp(inner * Vector::broadcast(-1.59576912F)));
}

/// Calls `body` with the activation function, so that the choice is made once and not for every vector.
template <class Body>
inline void with_activation(sparsekit::Activation kind, const Body& body) {
  switch (kind) {
    case sparsekit::Activation::none:
      return body([](Vector x) { return x; });
    case sparsekit::Activation::relu:
      return body([](Vector x) { return relu(x); });
    case sparsekit::Activation::gelu:
      return body([](Vector x) { return gelu(x); });
    case sparsekit::Activation::gelu_tanh:
      return body([](Vector x) { return gelu_tanh(x); });
    case sparsekit::Activation::silu:
      return body([](Vector x) { return silu(x); });
  }
}

}  // namespace
