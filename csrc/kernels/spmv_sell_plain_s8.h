// SpMV: sparse int8 weight times one token of bytes, row by row, for the scalar instruction set.
//
//   for each overlapping column block           128 bytes of the token
//     for each slice, and each row group of it
//       for each row of the row group           sums[row] += dot(its values, token[its columns])
//
// Per nonzero: 2 bytes of weight; three loads.
#pragma once

#include "sell_slice.h"
#include "tokens_s8.h"

namespace {

template <class Format>
inline void dot_row_group_s8(Entries<Format> entries, const std::uint8_t* x, std::int32_t* sums) {
  for (unsigned i = 0; i < entries.count; ++i) {
    const std::int32_t input = x[entries.columns[i % sparsekit::kQuad]];
    for (int r = 0; r < Format::height; ++r) sums[r] += *entries.value(i % sparsekit::kQuad, r) * input;
    if (i % sparsekit::kQuad == sparsekit::kQuad - 1) entries.next();
  }
}

template <class Format>
void spmv_sell_plain_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                        sparsekit::Range rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(1);
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t r = 0; r < sparsekit::padded_to_slices(groups.last - groups.first) * Format::height; ++r)
    sums[r] = 0;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const std::uint8_t* x = bytes + weight.first_column(b);
    for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
      const auto slice = Slice<Format>::of(weight, b, first);
      for (unsigned slot = 0; slot < sparsekit::kSlice; ++slot) {
        const std::int64_t at = sparsekit::sort_window_of(first) - groups.first + slice.slot_to_row[slot];
        dot_row_group_s8(Entries<Format>(slice, slot), x, sums + at * Format::height);
      }
    }
  }
}

}  // namespace
