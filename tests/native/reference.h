// The products in double precision, and how far from them a result may be.
//
// A sum of n products and a bias in float differs from the exact one by at most (n + 1) eps (|W| |x| + |bias|), in any
// order and with or without FMA. The activation functions pass that on with a slope of at most kSteepest, and add an
// error of their own: the 2e-7 of the normal distribution (kernels/math.h) and about three roundings, each relative to
// the argument.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "layer.h"

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
inline constexpr double kSteepest = 1.13;  // of gelu, gelu_tanh and silu, the largest slope anywhere
inline constexpr double kActivationError = 2e-7 + 3 * kEpsilon / 2;

struct Reference {
  std::int64_t outputs;
  std::vector<double> sums;        // [tokens, outputs]
  std::vector<double> magnitudes;  // the same with the absolute value of every product
  std::vector<double> terms;       // [outputs], products in a sum
};

/// Only nonzeros take part, so what stands in an input column without a weight changes nothing. `input` is contiguous.
inline Reference reference_of(const Layer& layer, Direction direction, const float* input, std::int64_t tokens) {
  const std::int64_t outputs = layer.outputs(direction);
  const auto size = static_cast<std::size_t>(tokens * outputs);
  Reference reference{outputs, std::vector<double>(size), std::vector<double>(size),
                      std::vector<double>(static_cast<std::size_t>(outputs))};
  const sparsekit::CsrView csr = layer.view();
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    for (std::int64_t i = csr.crow_indices[row]; i < csr.crow_indices[row + 1]; ++i) {
      const std::int64_t column = csr.col_indices[i];
      const std::int64_t from = direction == Direction::forward ? column : row;
      const std::int64_t to = direction == Direction::forward ? row : column;
      reference.terms.data()[to] += 1;
      for (std::int64_t token = 0; token < tokens; ++token) {
        const double product =
            double{csr.values_as<float>()[i]} * double{input[token * layer.inputs(direction) + from]};
        reference.sums.data()[token * outputs + to] += product;
        reference.magnitudes.data()[token * outputs + to] += std::fabs(product);
      }
    }
  }
  return reference;
}

/// torch's formulas.
inline double activated(sparsekit::Activation activation, double x) {
  switch (activation) {
    case sparsekit::Activation::none:
      return x;
    case sparsekit::Activation::relu:
      return x < 0 ? 0 : x;
    case sparsekit::Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case sparsekit::Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case sparsekit::Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return std::numeric_limits<double>::quiet_NaN();
}

inline bool agrees(float actual, double expected, double bound) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return double{actual} == expected;
  return std::fabs(double{actual} - expected) <= bound;
}

/// Index of the first output that is out of bounds, or -1. `bias` may be null.
inline std::int64_t first_wrong(const Reference& reference, const float* output, const float* bias,
                                sparsekit::Activation activation) {
  const bool smooth = activation > sparsekit::Activation::relu;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(reference.sums.size()); ++i) {
    const std::int64_t feature = i % reference.outputs;
    const double added = bias == nullptr ? 0.0 : double{bias[feature]};
    const double sum = reference.sums.data()[i] + added;
    const double magnitude = reference.magnitudes.data()[i] + std::fabs(added);
    double bound = (reference.terms.data()[feature] + 1) * kEpsilon * magnitude;
    if (smooth) bound = kSteepest * bound + kActivationError * std::fabs(sum);
    if (!agrees(output[i], activated(activation, sum), bound)) return i;
  }
  return -1;
}
