// Sparse weight times one to four tokens, 16 lanes at a time, for instruction sets that can pick inputs from registers.
//
//   for each block of 128 input features
//     for each token, or two of them            their inputs sit in registers
//       for each window of 64 lanes
//         for each tile of 16 lanes             four sums an output feature: four registers
//           for each group                      64 one-byte columns, 64 values an output feature of a lane
//             for each token                    pick the inputs of the 64 columns from registers
//               for each feature of a lane      four FMAs
//         the four sums of each feature added, brought from positions to lanes and added to the sums; those of
//         lanes of four in the order that `interleave` takes
//
// Picking from registers replaces the gather from memory that bounds CSR at about one cycle a nonzero. A padded entry
// picks 0, so that infinities and NaN of inputs without a weight stay out of the sums.
//
//   sums     [tile, height, lanes], lanes rounded up to 16
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_f32.h"

namespace {

/// The sums of a cell's 16 lanes, one vector for every token and output feature of a lane.
template <class Format, int tokens>
[[gnu::always_inline]] inline void multiply_cell(const Cell<Format>& cell, const Inputs* inputs,
                                                 Vector (*sums)[kTilesOfWindow], std::int64_t tile) {
  constexpr int height = Format::height;
  Vector sum[static_cast<std::size_t>(tokens)][static_cast<std::size_t>(height)][4];
  for (auto& token : sum) {
    for (auto& row : token) {
      for (auto& part : row) part = Vector::zero();
    }
  }
  for (std::size_t g = 0; g < cell.groups; ++g) {
    const auto* values = cell.values + g * Format::values;
    const Columns columns = Columns::load(cell.columns + g * sparsekit::kGroup);
    for (int t = 0; t < tokens; ++t) {
      Vector picked[4];
      inputs[t].pick(columns, picked);
      for (int r = 0; r < height; ++r) {
        for (int k = 0; k < 4; ++k) {
          sum[t][r][k] = fma(load_values(values + r * sparsekit::kGroup, k), picked[k], sum[t][r][k]);
        }
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < height; ++r) sums[t * height + r][tile] = sums_of_quads(sum[t][r]);
  }
}

/// One block times `tokens` tokens; `activation` and `sums` are those of the first.
template <class Format, int tokens>
inline void multiply_block(const sparsekit::PackedWeight& weight, std::int64_t block, const float* activation,
                           float* sums, sparsekit::RowRange lanes) {
  constexpr int found_size = tokens * Format::height;
  const std::int64_t stride = sparsekit::padded_lanes(lanes.last - lanes.first);
  Inputs inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Inputs::load(activation + t * weight.blocks * sparsekit::kBlockWidth);
  for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kWindow) {
    const std::int64_t tiles =
        smaller(kTilesOfWindow, (lanes.last - first + sparsekit::kLanes - 1) / sparsekit::kLanes);
    Vector found[static_cast<std::size_t>(found_size)][kTilesOfWindow];
    for (std::int64_t i = 0; i < tiles; ++i) {
      multiply_cell<Format, tokens>(Cell<Format>::of(weight, block, first + i * sparsekit::kLanes), inputs, found, i);
    }
    for (std::int64_t i = 0; i < tiles; ++i) {
      const std::uint8_t* at = weight.positions + weight.order_at(block, first + i * sparsekit::kLanes);
      const Positions positions = Format::height == 1 ? Positions(at) : Positions::by_four(at);
      for (int t = 0; t < found_size; ++t) {
        float* sum = sums + t * stride + (first - lanes.first) + i * sparsekit::kLanes;
        const Vector more = positions.choose(found[t]);
        (block == 0 ? more : Vector::load(sum) + more).store(sum);
      }
    }
  }
}

template <class Format, int tile>
void spmv_quads(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::RowRange rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  constexpr int together = tile > 1 && Format::height == 1 ? 2 : 1;
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  const std::int64_t token = sparsekit::padded_lanes(lanes.last - lanes.first) * Format::height;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (int t = 0; t < tile; t += together) {
      multiply_block<Format, together>(weight, b, activation + t * features + b * sparsekit::kBlockWidth,
                                       sums + t * token, lanes);
    }
  }
}

/// Every token's row in the form that `Inputs` wants; a packed row takes as many bytes as floats.
template <int tile>
bool pack_inputs_f32(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                     void* packed) {
  auto* activation = static_cast<float*>(packed);
  for (int t = 0; t < tile; ++t) {
    const float* row = input.data + t * input.stride;
    for (std::int64_t f = features.first; f < features.last; f += Inputs::kPackWidth) {
      const std::int64_t count = t < input.tokens ? smaller(Inputs::kPackWidth, features.last - f) : 0;
      Inputs::pack(row + f, count, activation + t * padded_features + f);
    }
  }
  return true;
}

template <class Format, int tile>
constexpr sparsekit::Kernel few_tokens(std::int64_t min_batch) {
  return {"spmv",
          Format::layout,
          tile,
          min_batch,
          tile * static_cast<std::int64_t>(sizeof(float)),
          0,
          false,
          spmv_quads<Format, tile>,
          nullptr,
          pack_inputs_f32<tile>,
          store_tokens_f32<Format::height>};
}

/// Kernels for a few tokens of one format.
template <class Format>
constexpr void add_few_tokens(sparsekit::KernelTable& table) {
  table.add(few_tokens<Format, 1>(1));
  table.add(few_tokens<Format, 2>(2));
  if constexpr (kMostFewTokens >= 3) table.add(few_tokens<Format, 4>(3));
}

}  // namespace
