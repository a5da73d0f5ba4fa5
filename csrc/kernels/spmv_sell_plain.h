// SpMV: sparse weight times one token, row by row, for instruction sets that cannot permute inputs across registers.
//
//   for each column block (128 inputs)          its part of the token: 512 bytes, in L1
//     for each slice, and each row group of it
//       for each row of the row group           sums[row] += dot(its values, token[its columns])
//
// Per nonzero: 5 bytes of weight, read once; the bound is three loads (value, column, token). Four accumulators, one
// for each entry of a quad, since one would wait for the latency of each addition.
#pragma once

#include "sell_slice.h"
#include "tokens_f32.h"

namespace {

template <class Format>
inline void dot_row_group(Entries<Format> entries, const float* x, float* sums) {
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
void spmv_sell_plain(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t r = 0; r < sparsekit::padded_to_slices(groups.last - groups.first) * Format::height; ++r)
    sums[r] = 0.0F;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const float* x = activation + b * sparsekit::kColumnBlock;
    for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
      const auto slice = Slice<Format>::of(weight, b, first);
      for (unsigned slot = 0; slot < sparsekit::kSlice; ++slot) {
        const std::int64_t at = sparsekit::sort_window_of(first) - groups.first + slice.slot_to_row[slot];
        dot_row_group(Entries<Format>(slice, slot), x, sums + at * Format::height);
      }
    }
  }
}

}  // namespace
