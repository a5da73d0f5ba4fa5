// A random sparse layer to test with, as dense, CSR and packed weight, and calls on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "dispatch/linear.h"
#include "dispatch/product.h"
#include "formats/csr.h"
#include "formats/packed.h"

using sparsekit::Direction;

using Bytes = std::vector<std::byte>;

struct Layer {
  std::int64_t out_features;
  std::int64_t in_features;
  std::vector<float> dense;
  sparsekit::CsrArrays csr;

  std::int64_t inputs(Direction direction) const {
    return direction == Direction::forward ? in_features : out_features;
  }
  std::int64_t outputs(Direction direction) const {
    return direction == Direction::forward ? out_features : in_features;
  }
  sparsekit::CsrView view() const {
    return {csr.crow_indices.data(),
            static_cast<std::int64_t>(csr.crow_indices.size()),
            csr.col_indices.data(),
            static_cast<std::int64_t>(csr.col_indices.size()),
            csr.values.data(),
            static_cast<std::int64_t>(csr.values.size()),
            out_features,
            in_features};
  }
};

/// Signed floats in [-1, 1).
inline std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<float> floats(static_cast<std::size_t>(count));
  for (auto& f : floats) f = static_cast<float>(bits() >> 8) / static_cast<float>(1 << 23) - 1.0F;
  return floats;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

inline Layer layer_from_dense(std::vector<float> dense, std::int64_t out_features, std::int64_t in_features) {
  sparsekit::CsrArrays csr = sparsekit::csr_from_dense(dense.data(), out_features, in_features);
  return {out_features, in_features, std::move(dense), std::move(csr)};
}

/// Between sparsity 0 and 1, the second of three or more rows is empty and the last one full.
inline Layer random_layer(std::int64_t out_features, std::int64_t in_features, double sparsity, unsigned seed = 1) {
  std::vector<float> dense = random_floats(out_features * in_features, seed);
  std::mt19937 bits(seed + 1);
  const bool mixed = sparsity > 0 && sparsity < 1 && out_features >= 3;
  for (std::int64_t i = 0; i < out_features * in_features; ++i) {
    const std::int64_t row = i / in_features;
    const bool kept = static_cast<double>(bits()) >= sparsity * 4294967296.0;
    if (!(mixed && row == out_features - 1) && (!kept || (mixed && row == 1))) dense.data()[i] = 0.0F;
  }
  return layer_from_dense(std::move(dense), out_features, in_features);
}

/// A heap buffer of exactly the packed size.
inline Bytes packed(const sparsekit::CsrView& csr) {
  const sparsekit::PackPlan plan = sparsekit::plan_pack(csr, sparsekit::Layout::quads);
  Bytes buffer(plan.header.total_bytes);
  sparsekit::write_packed(csr, plan, buffer.data());
  return buffer;
}

/// A call without bias and activation function on contiguous input.
inline sparsekit::LinearCall plain_call(const Layer& layer, const Bytes& weight, Direction direction,
                                        const float* input, std::int64_t batch, float* output) {
  return {weight.data(),
          weight.size(),
          input,
          layer.inputs(direction),
          layer.inputs(direction),
          batch,
          output,
          layer.outputs(direction),
          nullptr,
          sparsekit::Activation::none};
}

inline void run_call(const sparsekit::LinearCall& call, Direction direction) {
  direction == Direction::forward ? sparsekit::linear(call) : sparsekit::linear_input_gradient(call);
}

/// Output of a plain call.
inline std::vector<float> output_of(const Layer& layer, const Bytes& weight, Direction direction,
                                    const std::vector<float>& input, std::int64_t batch) {
  std::vector<float> output(static_cast<std::size_t>(batch * layer.outputs(direction)), 7.0F);
  run_call(plain_call(layer, weight, direction, input.data(), batch, output.data()), direction);
  return output;
}
