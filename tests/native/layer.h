// A random sparse layer to test with, as dense, CSR and packed weight, and calls on it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "formats/csr.h"
#include "formats/dense_int4.h"
#include "formats/packed.h"
#include "operators/sparse_linear.h"
#include "operators/sparse_product.h"

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

/// Between sparsity 0 and 1, the second of three or more row groups is empty and the last one full; a row group has
/// `height` rows with nonzeros in the same columns.
inline Layer random_layer(std::int64_t out_features, std::int64_t in_features, double sparsity, unsigned seed = 1,
                          std::int64_t height = 1) {
  std::vector<float> dense = random_floats(out_features * in_features, seed);
  std::mt19937 bits(seed + 1);
  const std::int64_t groups = (out_features + height - 1) / height;
  const bool mixed = sparsity > 0 && sparsity < 1 && groups >= 3;
  for (std::int64_t i = 0; i < groups * in_features; ++i) {
    const std::int64_t group = i / in_features;
    const bool drawn = static_cast<double>(bits()) >= sparsity * 4294967296.0;
    const bool kept = (mixed && group == groups - 1) || (drawn && !(mixed && group == 1));
    for (std::int64_t row = group * height; row < std::min((group + 1) * height, out_features); ++row) {
      float& value = dense.data()[row * in_features + i % in_features];
      if (!kept) value = 0.0F;
      if (kept && value == 0.0F) value = 0.5F;
    }
  }
  return layer_from_dense(std::move(dense), out_features, in_features);
}

/// A heap buffer of exactly the packed size. Values in [-1, 1) are stored in int8 as multiples of 1/127, in int4 of
/// 1/8.
inline Bytes packed(const sparsekit::CsrView& csr, sparsekit::Layout layout = sparsekit::Layout::sell_f32) {
  const bool grouped = sparsekit::layout_entry(layout).grouped();
  const std::int64_t each = grouped ? sparsekit::groups_of(csr.in_features) : 1;
  const std::vector<float> scales(static_cast<std::size_t>(csr.out_features * each), grouped ? 0.125F : 1.0F / 127);
  const sparsekit::PackPlan plan = sparsekit::plan_pack(csr, layout, scales.data());
  Bytes buffer(plan.header.total_bytes);
  sparsekit::write_packed(csr, plan, buffer.data());
  return buffer;
}

/// Back from a packed weight, values as they are stored.
inline sparsekit::AnyCsrArrays unpacked(const Bytes& weight) {
  const sparsekit::PackedHeader& header = sparsekit::packed_header(weight.data(), weight.size());
  return sparsekit::layout_entry(header.layout).unpack(sparsekit::packed_view(header), header.nnz);
}

/// Back from a packed weight, values as floats.
inline sparsekit::CsrArrays unpacked_floats(const Bytes& weight) {
  const sparsekit::PackedHeader& header = sparsekit::packed_header(weight.data(), weight.size());
  const sparsekit::AnyCsrArrays arrays = unpacked(weight);
  const sparsekit::PackedWeight view = sparsekit::packed_view(header);
  const bool grouped = sparsekit::layout_entry(header.layout).grouped();
  const std::vector<float> of_groups = grouped ? sparsekit::group_scales_of(view) : std::vector<float>();
  const float* scales = grouped ? of_groups.data() : view.scales;
  const sparsekit::CsrView csr = sparsekit::view_of(arrays, header.out_features, header.in_features, scales);
  return {{csr.crow_indices, csr.crow_indices + csr.crow_size},
          {csr.col_indices, csr.col_indices + csr.col_size},
          sparsekit::float_values(csr)};
}

/// The layer with the values that a packed weight of it holds.
inline Layer held(const Layer& layer, const Bytes& weight) {
  return {layer.out_features, layer.in_features, {}, unpacked_floats(weight)};
}

/// Layouts that are multiplied with inputs as they are.
inline std::vector<sparsekit::Layout> float_layouts() {
  std::vector<sparsekit::Layout> found;
  for (const sparsekit::LayoutEntry& entry : sparsekit::layout_entries()) {
    if (!entry.quantizes && !entry.grouped()) found.push_back(entry.layout);
  }
  return found;
}

/// A call without bias and activation function on contiguous input.
inline sparsekit::LinearCall plain_call(const Layer& layer, const Bytes& weight, Direction direction,
                                        const float* input, std::int64_t tokens, float* output) {
  return {weight.data(),
          weight.size(),
          input,
          layer.inputs(direction),
          layer.inputs(direction),
          tokens,
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
                                    const std::vector<float>& input, std::int64_t tokens) {
  std::vector<float> output(static_cast<std::size_t>(tokens * layer.outputs(direction)), 7.0F);
  run_call(plain_call(layer, weight, direction, input.data(), tokens, output.data()), direction);
  return output;
}
