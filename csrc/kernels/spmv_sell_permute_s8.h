// SpMV (int8 GEMV of AVX-512 VBMI): sparse int8 weight times tokens of bytes, 16 rows at a time, for instruction sets
// that permute bytes across registers.
//
//   for each sort window of 64 rows (4x1 blocks: 32 row groups)
//     for every eight tokens (4x1 blocks: four)  their bytes stay in L1; the window's stripes in L1 or L2
//       for each 16 rows                         the tokens' accumulators in registers, one a row of a row group
//         for each overlapping column block      the tokens' 128 bytes of it in registers, two for each
//           for each stripe                      64 columns; 64 values for each row of a row group
//             for each token                     permute 64 bytes once; one `dot` for each row of a row group
//
// Per nonzero: 2 bytes of weight (1.25 in 4x1 blocks), whatever the number of tokens, and 2/64 loads. Sums are left by
// slot.
//
//   sums     int32 [tile, height, slots], rounded up to 16
#pragma once

#include <cstddef>

#include "sell_slice.h"
#include "tokens_s8.h"

namespace {

/// Accumulators of `size` rows or tokens or both. A single one would wait for its latency from stripe to stripe: there,
/// two take turns.
template <int size>
struct Accumulators {
  static constexpr int count = size == 1 ? 2 : 1;
  VecI32 turns[static_cast<std::size_t>(count)][static_cast<std::size_t>(size)];

  void begin() {
    for (auto& turn : turns) {
      for (VecI32& one : turn) one = VecI32::zero();
    }
  }

  void pass() {
    if constexpr (count == 2) {
      const VecI32 first = turns[0][0];
      turns[0][0] = turns[1][0];
      turns[1][0] = first;
    }
  }

  void store(std::int32_t* sums, std::int64_t stride) const {
    for (int i = 0; i < size; ++i) {
      (count == 2 ? turns[0][i] + turns[count - 1][i] : turns[0][i]).store(sums + i * stride);
    }
  }
};

/// Adds the stripes of the next column block for `tokens` tokens.
template <class Format, int tokens>
[[gnu::always_inline]] inline void add_column_block_s8(Stripes<Format>& stripes, const InputBytes* inputs,
                                                       Accumulators<tokens * Format::height>& accumulators) {
  for (const unsigned end = *++stripes.slice_offsets; stripes.index != end; stripes.next(), accumulators.pass()) {
    const auto columns = InputBytes::load_stripe(stripes.columns);
    for (int t = 0; t < tokens; ++t) {
      const auto permuted = inputs[t].permute(columns);
      for (int r = 0; r < Format::height; ++r) {
        VecI32& accumulator = accumulators.turns[0][t * Format::height + r];
        accumulator = dot(accumulator, permuted, InputBytes::load_stripe(stripes.values + r * sparsekit::kStripe));
      }
    }
  }
}

/// 16 row groups, from `slot` on, for `tokens` tokens; `bytes` are those of the first.
template <class Format, int tokens>
inline void multiply_slots_s8(const sparsekit::PackedWeight& weight, std::int64_t slot, const std::uint8_t* bytes,
                              std::int64_t features, std::int32_t* sums, std::int64_t stride) {
  auto stripes = Stripes<Format>::of(weight, slot);
  Accumulators<tokens * Format::height> accumulators;
  accumulators.begin();
  for (std::int64_t b = 0; b < weight.column_blocks; ++b, bytes += sparsekit::kColumnBlockStep) {
    InputBytes inputs[static_cast<std::size_t>(tokens)];
    for (int t = 0; t < tokens; ++t) inputs[t] = InputBytes::load(bytes + t * features);
    add_column_block_s8<Format, tokens>(stripes, inputs, accumulators);
  }
  accumulators.store(sums, stride);
}

template <class Format, int tile>
void spmv_sell_permute_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                          sparsekit::Range rows) {
  constexpr int most = Format::height == 1 ? 8 : 4;
  constexpr int together = tile < most ? tile : most;
  constexpr std::int64_t window = Format::height == 1 ? sparsekit::kSortWindow : sparsekit::kSortWindow / 2;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  const std::int64_t features = weight.padded_features();
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::Range range = row_groups_of<Format>(rows);
  const std::int64_t groups = sparsekit::padded_to_slices(range.last - range.first);
  for (std::int64_t w = 0; w < groups; w += window) {
    for (int t = 0; t < tile; t += together) {
      for (std::int64_t g = w; g < min(w + window, groups); g += sparsekit::kSlice) {
        multiply_slots_s8<Format, together>(weight, range.first + g, bytes + t * features, features,
                                            sums + t * Format::height * groups + g, groups);
      }
    }
  }
}

}  // namespace
