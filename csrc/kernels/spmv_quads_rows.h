// Sparse weight times one token, lane by lane, for instruction sets that cannot pick inputs from registers.
//
//   for each block of 128 input features        the block's part of the token: 512 bytes, in L1
//     for each lane
//       for each output feature of the lane     sums[feature] += dot(its values, token[columns of the lane])
//
// Per nonzero: 5 bytes of weight, read once; the bound is the three loads (value, column, token) of a nonzero. Four
// sums, one for each entry of a quad, since one would wait for each addition.
#pragma once

#include "quads.h"
#include "tokens_f32.h"

namespace {

template <class Format>
inline void dot_lane(Entries<Format> entries, const float* x, float* sums) {
  float sum[Format::height][sparsekit::kQuad] = {};
  for (unsigned left = entries.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, entries.next()) {
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      for (int r = 0; r < Format::height; ++r) sum[r][i] += widen(*entries.value(i, r)) * x[entries.columns[i]];
    }
  }
  for (unsigned i = 0; i < entries.count % sparsekit::kQuad; ++i) {
    for (int r = 0; r < Format::height; ++r) sum[r][0] += widen(*entries.value(i, r)) * x[entries.columns[i]];
  }
  for (int r = 0; r < Format::height; ++r) sums[r] += (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
}

template <class Format>
void spmv_quads_rows(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                     sparsekit::RowRange rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  for (std::int64_t r = 0; r < sparsekit::padded_lanes(lanes.last - lanes.first) * Format::height; ++r) sums[r] = 0.0F;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* x = activation + b * sparsekit::kBlockWidth;
    for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
      const auto cell = Cell<Format>::of(weight, b, first);
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        const std::int64_t at = sparsekit::window_of(first) - lanes.first + cell.lanes[lane];
        dot_lane(Entries<Format>(cell, lane), x, sums + at * Format::height);
      }
    }
  }
}

/// With more tokens, a tile of eight is faster, padding and all.
inline constexpr std::int64_t kMostFewTokens = 1;

/// Kernels for a few tokens of one format.
template <class Format>
constexpr void add_few_tokens(sparsekit::KernelTable& table) {
  table.add({"spmv_rows", Format::layout, 1, 1, sizeof(float), 0, false, spmv_quads_rows<Format>, nullptr, nullptr,
             store_tokens_f32<1>});
}

}  // namespace
