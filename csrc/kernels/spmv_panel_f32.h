// Sparse weight times one token.
//
//   for each block of input features          the block's part of the token: at most 1 KB, in L1
//     for each row of the range
//       sums[row] += dot(values of the segment, token[columns of the segment])
//
// Per nonzero: 5 bytes of weight, read once and in order; the bound is memory for large weights, else the three
// loads (value, column, token) of a nonzero.
#pragma once

#include "views.h"

namespace {

/// Dot product of `values[count]` with `x[columns[count]]`; four sums, since one would wait for each addition.
inline float dot_indexed(const float* values, const std::uint8_t* columns, std::int64_t count, const float* x) {
  float sum[4] = {0.0F, 0.0F, 0.0F, 0.0F};
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int k = 0; k < 4; ++k) sum[k] += values[i + k] * x[columns[i + k]];
  }
  for (; i < count; ++i) sum[0] += values[i] * x[columns[i]];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

inline void spmv_panel_f32(const sparsekit::PackedWeight& weight, const float* activation, float* sums,
                           sparsekit::RowRange rows) {
  for (std::int64_t r = rows.first; r < rows.last; ++r) sums[r - rows.first] = 0.0F;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* block = activation + b * weight.block_width;
    const std::uint32_t* segment = weight.starts + b * weight.out_features;
    for (std::int64_t r = rows.first; r < rows.last; ++r) {
      const std::uint32_t first = segment[r];
      sums[r - rows.first] += dot_indexed(weight.values + first, weight.columns + first, segment[r + 1] - first, block);
    }
  }
}

}  // namespace
