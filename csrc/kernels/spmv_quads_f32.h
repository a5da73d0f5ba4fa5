// Sparse weight times one to four tokens, 16 rows at a time, for instruction sets that can pick inputs from registers.
//
//   for each block of 128 input features
//     for each token, or two of them            their inputs sit in registers
//       for each tile of 16 rows                four sums a row: four registers, loaded and stored once a block
//         for each group                        64 values, 64 one-byte columns
//           for each token                      pick the inputs of the 64 columns from registers, four FMAs
//
// Picking from registers replaces the gather from memory that bounds CSR at about one cycle a nonzero. A padded entry
// picks 0, so that infinities and NaN of inputs without a weight stay out of the sums. The four sums of a row are added
// at the end.
//
//   sums     [tile, rows] and behind them [tile, rows, 4], rows rounded up to 16
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_f32.h"

namespace {

/// Adds a cell to the sums of its 16 rows for every token.
template <int tokens>
[[gnu::always_inline]] inline void multiply_cell(const Cell& cell, const Inputs* inputs, bool begin, float* sums,
                                                 std::int64_t sums_stride) {
  Vector sum[static_cast<std::size_t>(tokens)][4];
  for (int t = 0; t < tokens; ++t) {
    for (int k = 0; k < 4; ++k) {
      sum[t][k] = begin ? Vector::zero() : Vector::load(sums + t * sums_stride + k * Vector::width);
    }
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
  for (int t = 0; t < tokens; ++t) {
    for (int k = 0; k < 4; ++k) sum[t][k].store(sums + t * sums_stride + k * Vector::width);
  }
}

/// One block times `tokens` tokens; `activation` and `sums` are those of the first.
template <int tokens>
inline void multiply_block(const sparsekit::PackedWeight& weight, std::int64_t block, const float* activation,
                           float* sums, std::int64_t sums_stride, sparsekit::RowRange rows) {
  Inputs inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Inputs::load(activation + t * weight.blocks * sparsekit::kBlockWidth);
  for (std::int64_t r = rows.first; r < rows.last; r += sparsekit::kLanes) {
    multiply_cell<tokens>(Cell::of(weight, block, r), inputs, block == 0, sums + (r - rows.first) * sparsekit::kQuad,
                          sums_stride);
  }
}

/// The four sums of every row added, and brought from the row's position to its output feature.
inline void add_quads(const sparsekit::PackedWeight& weight, const float* parts, float* sums,
                      sparsekit::RowRange rows) {
  for (std::int64_t r = rows.first; r < rows.last; r += sparsekit::kLanes) {
    Vector part[4];
    for (int k = 0; k < 4; ++k) {
      part[k] = Vector::load(parts + (r - rows.first) * sparsekit::kQuad + k * Vector::width);
    }
    float total[sparsekit::kLanes];
    sums_of_quads(part).store(total);
    float* window = sums + (sparsekit::window_of(r) - rows.first);
    for (int lane = 0; lane < sparsekit::kLanes; ++lane) window[weight.rows[r + lane]] = total[lane];
  }
}

template <int tile>
void spmv_quads_f32(const sparsekit::PackedWeight& weight, const float* activation, float* sums,
                    sparsekit::RowRange rows) {
  constexpr int together = tile < 2 ? tile : 2;
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const std::int64_t stride = sparsekit::padded_lanes(rows.last - rows.first);
  const std::int64_t parts_stride = stride * sparsekit::kQuad;
  float* parts = sums + tile * stride;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (int t = 0; t < tile; t += together) {
      multiply_block<together>(weight, b, activation + t * features + b * sparsekit::kBlockWidth,
                               parts + t * parts_stride, parts_stride, rows);
    }
  }
  for (int t = 0; t < tile; ++t) add_quads(weight, parts + t * parts_stride, sums + t * stride, rows);
}

/// Every token's row in the form that `Inputs` wants; a packed row takes as many bytes as floats.
template <int tile>
void pack_inputs_f32(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                     float* activation) {
  for (int t = 0; t < tile; ++t) {
    const float* row = input.data + t * input.stride;
    for (std::int64_t f = features.first; f < features.last; f += Inputs::kPackWidth) {
      const std::int64_t count = t < input.tokens ? smaller(Inputs::kPackWidth, features.last - f) : 0;
      Inputs::pack(row + f, count, activation + t * padded_features + f);
    }
  }
}

template <int tile>
constexpr sparsekit::Kernel few_tokens(const char* name, std::int64_t min_batch) {
  return {name,
          sparsekit::Layout::quads,
          tile,
          min_batch,
          sparsekit::kBlockWidth,
          1 + sparsekit::kQuad,
          spmv_quads_f32<tile>,
          nullptr,
          pack_inputs_f32<tile>,
          nullptr,
          store_tokens_f32};
}

constexpr sparsekit::Kernel kFewTokens[] = {few_tokens<1>("spmv_quads_f32_1", 1), few_tokens<2>("spmv_quads_f32_2", 2),
                                            few_tokens<4>("spmv_quads_f32_4", 3)};

}  // namespace
