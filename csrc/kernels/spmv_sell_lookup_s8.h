// SpMV (int8 GEMV of AVX2, AVX-512 without VBMI, and NEON): sparse int8 weight times a few tokens of bytes, 16 rows at
// a time, for instruction sets that look bytes up in tables (pshufb, tbl).
//
//   for each 16 rows (a slice of every column block)
//     for each token                            accumulators of each row of a row group in registers
//       for each overlapping column block       128 bytes of the token in registers, as tables of 16
//         for each stripe                       look 64 bytes up once, multiply with the values of each row
//   the sums of each sort window, brought from slots to output features
//
// Per nonzero: 2 bytes of weight (1.25 in 4x1 blocks), 2/64 loads. Looking up takes a few instructions for each table,
// and replaces three loads a nonzero.
//
//   sums     int32 [tile, rows], rows rounded up to whole slices
#pragma once

#include <cstddef>

#include "sell_slice.h"
#include "tokens_s8.h"

namespace {

/// int8 values that one vector holds.
inline constexpr int kBytesOfVector = 4 * Vec::width;

/// 16 row groups, from `slot` on, times one token; `sums` are [height, 16].
template <class Format>
inline void look_up_slice_s8(const sparsekit::PackedWeight& weight, std::int64_t slot, const std::uint8_t* bytes,
                             std::int32_t* sums) {
  constexpr int parts = sparsekit::kStripe / kBytesOfVector;
  constexpr int size = parts * Format::height;
  auto stripes = Stripes<Format>::of(weight, slot);
  VecI32 accumulator[static_cast<std::size_t>(size)];
  for (int i = 0; i < size; ++i) accumulator[i] = VecI32::zero();
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const ByteTable table = ByteTable::load(bytes + weight.first_column(b));
    for (const unsigned end = *++stripes.slice_offsets; stripes.index != end; stripes.next()) {
      for (int part = 0; part < parts; ++part) {
        const VecU8 found = table.look_up(stripes.columns + part * kBytesOfVector);
        for (int r = 0; r < Format::height; ++r) {
          const auto values = Int8Quads::load(stripes.values + r * sparsekit::kStripe + part * kBytesOfVector);
          accumulator[r * parts + part] = dot(accumulator[r * parts + part], found, values);
        }
      }
    }
  }
  for (int i = 0; i < size; ++i) accumulator[i].store(sums + i * Vec::width);
}

/// Brings the sums of `groups` row groups, from the first of a sort window on, from slots to output features.
template <class Format>
inline void order_sums_s8(const std::uint8_t* row_to_slot, std::int64_t groups, std::int32_t* sums) {
  constexpr std::int64_t size = Format::height * sparsekit::kSlice;
  std::int32_t from[kSlicesOfWindow][Format::height][sparsekit::kSlice];
  __builtin_memcpy(from, sums, static_cast<std::size_t>(groups / sparsekit::kSlice * size) * sizeof(std::int32_t));
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t slot = row_to_slot[g];
    for (int r = 0; r < Format::height; ++r) {
      sums[g * Format::height + r] = from[slot / sparsekit::kSlice][r][slot % sparsekit::kSlice];
    }
  }
}

template <class Format, int tile>
void spmv_sell_lookup_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                         sparsekit::Range rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  auto* sums = static_cast<std::int32_t*>(results);
  const std::int64_t features = weight.padded_features();
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  const std::int64_t stride = sparsekit::padded_to_slices(groups.last - groups.first) * Format::height;
  for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
    std::int32_t* at = sums + (first - groups.first) * Format::height;
    for (int t = 0; t < tile; ++t) look_up_slice_s8<Format>(weight, first, bytes + t * features, at + t * stride);
  }
  for (int t = 0; t < tile; ++t) {
    for (std::int64_t at = 0; at < stride; at += sparsekit::kSortWindow * Format::height) {
      order_sums_s8<Format>(weight.row_to_slot + groups.first + at / Format::height,
                            min(sparsekit::kSortWindow, (stride - at) / Format::height), sums + t * stride + at);
    }
  }
}

}  // namespace
