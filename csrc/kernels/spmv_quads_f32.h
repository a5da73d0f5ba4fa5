// Sparse weight times one to four tokens, 16 rows at a time, for instruction sets that can pick inputs from registers.
//
//   for each block of 128 input features
//     for each token, or two of them            their inputs sit in registers
//       for each window of 64 rows
//         for each tile of 16 rows              four sums a row: four registers
//           for each group                      64 values, 64 one-byte columns
//             for each token                    pick the inputs of the 64 columns from registers, four FMAs
//         the four sums of each row added, brought from positions to output features and added to the sums
//
// Picking from registers replaces the gather from memory that bounds CSR at about one cycle a nonzero. A padded entry
// picks 0, so that infinities and NaN of inputs without a weight stay out of the sums.
//
//   sums     [tile, rows], rows rounded up to 16
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_f32.h"

namespace {

/// The sums of a cell's 16 rows for every token.
template <int tokens>
[[gnu::always_inline]] inline void multiply_cell(const Cell& cell, const Inputs* inputs, Vector (*sums)[kTilesOfWindow],
                                                 std::int64_t tile) {
  Vector sum[static_cast<std::size_t>(tokens)][4];
  for (int t = 0; t < tokens; ++t) {
    for (int k = 0; k < 4; ++k) sum[t][k] = Vector::zero();
  }
  for (std::size_t g = 0; g < cell.groups; ++g) {
    const float* values = cell.values + g * sparsekit::kGroup;
    const Columns columns = Columns::load(cell.columns + g * sparsekit::kGroup);
    for (int t = 0; t < tokens; ++t) {
      Vector picked[4];
      inputs[t].pick(columns, picked);
      for (int k = 0; k < 4; ++k) sum[t][k] = fma(Vector::load(values + k * Vector::width), picked[k], sum[t][k]);
    }
  }
  for (int t = 0; t < tokens; ++t) sums[t][tile] = sums_of_quads(sum[t]);
}

/// One block times `tokens` tokens; `activation` and `sums` are those of the first.
template <int tokens>
inline void multiply_block(const sparsekit::PackedWeight& weight, std::int64_t block, const float* activation,
                           float* sums, std::int64_t sums_stride, sparsekit::RowRange rows) {
  Inputs inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Inputs::load(activation + t * weight.blocks * sparsekit::kBlockWidth);
  for (std::int64_t first = rows.first; first < rows.last; first += sparsekit::kWindow) {
    const std::int64_t tiles = smaller(kTilesOfWindow, (rows.last - first + sparsekit::kLanes - 1) / sparsekit::kLanes);
    Vector found[static_cast<std::size_t>(tokens)][kTilesOfWindow];
    for (std::int64_t i = 0; i < tiles; ++i) {
      multiply_cell<tokens>(Cell::of(weight, block, first + i * sparsekit::kLanes), inputs, found, i);
    }
    const std::uint8_t* positions = weight.positions + weight.at(block, first);
    for (int t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < tiles; ++i) {
        float* sum = sums + t * sums_stride + (first - rows.first) + i * sparsekit::kLanes;
        const Vector more = Positions(positions + i * sparsekit::kLanes).choose(found[t]);
        (block == 0 ? more : Vector::load(sum) + more).store(sum);
      }
    }
  }
}

template <int tile>
void spmv_quads_f32(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                    sparsekit::RowRange rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  constexpr int together = tile < 2 ? tile : 2;
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const std::int64_t stride = sparsekit::padded_lanes(rows.last - rows.first);
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (int t = 0; t < tile; t += together) {
      multiply_block<together>(weight, b, activation + t * features + b * sparsekit::kBlockWidth, sums + t * stride,
                               stride, rows);
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

template <int tile>
constexpr sparsekit::Kernel few_tokens(const char* name, std::int64_t min_batch) {
  return {name,
          sparsekit::Layout::quads,
          tile,
          min_batch,
          tile * static_cast<std::int64_t>(sizeof(float)),
          0,
          false,
          spmv_quads_f32<tile>,
          nullptr,
          pack_inputs_f32<tile>,
          store_tokens_f32};
}

constexpr sparsekit::Kernel kFewTokens[] = {few_tokens<1>("spmv_quads_f32_1", 1), few_tokens<2>("spmv_quads_f32_2", 2),
                                            few_tokens<4>("spmv_quads_f32_4", 3)};

}  // namespace
