// Sparse weight times one token, row by row, for instruction sets that cannot pick inputs from registers.
//
//   for each block of 128 input features        the block's part of the token: 512 bytes, in L1
//     for each row                              sums[row] += dot(values of the row, token[columns of the row])
//
// Per nonzero: 5 bytes of weight, read once; the bound is the three loads (value, column, token) of a nonzero. Four
// sums, one for each entry of a quad, since one would wait for each addition.
#pragma once

#include "quads.h"
#include "tokens_f32.h"

namespace {

inline float dot_row(Row row, const float* x) {
  float sum[sparsekit::kQuad] = {0.0F, 0.0F, 0.0F, 0.0F};
  for (unsigned left = row.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, row.next()) {
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) sum[i] += row.values[i] * x[row.columns[i]];
  }
  for (unsigned i = 0; i < row.count % sparsekit::kQuad; ++i) sum[0] += row.values[i] * x[row.columns[i]];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

inline void spmv_quads_rows_f32(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                                sparsekit::RowRange rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t r = rows.first; r < sparsekit::padded_lanes(rows.last); ++r) sums[r - rows.first] = 0.0F;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (std::int64_t first = rows.first; first < rows.last; first += sparsekit::kLanes) {
      const Cell cell = Cell::of(weight, b, first);
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        const float* x = activation + b * sparsekit::kBlockWidth;
        sums[sparsekit::window_of(first) - rows.first + cell.rows[lane]] += dot_row(Row(cell, lane), x);
      }
    }
  }
}

/// With more tokens, a tile of eight is faster, padding and all.
inline constexpr std::int64_t kMostFewTokens = 1;

constexpr sparsekit::Kernel kFewTokens[] = {{"spmv_quads_rows_f32", sparsekit::Layout::quads, 1, 1, sizeof(float), 0,
                                             false, spmv_quads_rows_f32, nullptr, nullptr, store_tokens_f32}};

}  // namespace
