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
