// Sparse int8 weight times tokens of bytes, 16 lanes at a time, for instruction sets that pick bytes from registers.
//
//   for each window of 64 lanes (4x1 blocks: 32)
//     for every eight tokens (4x1 blocks: four)   their bytes stay in L1; the window's groups in L1 or L2
//       for each tile of 16 lanes                 the tokens' sums in registers, one for each feature of a lane
//         for each sliding block                  the tokens' 128 bytes of it in registers, two for each
//           for each group                        64 columns; 64 codes for each output feature of a lane
//             for each token                      pick 64 bytes once; multiply, and add four by four, for each feature
//
// Per group: 128 bytes of weight (4x1 blocks: 320), whatever the number of tokens. Sums are left by position.
//
//   sums     int32 [tile, height, positions], lanes rounded up to 16
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_s8.h"

namespace {

/// The sums of `size` rows or tokens or both. A single one would wait for itself from group to group: there, two take
/// turns.
template <int size>
struct Turns {
  static constexpr int count = size == 1 ? 2 : 1;
  Sums sum[static_cast<std::size_t>(count)][static_cast<std::size_t>(size)];

  void begin() {
    for (auto& turn : sum) {
      for (Sums& one : turn) one = Sums::zero();
    }
  }

  void pass() {
    if constexpr (count == 2) {
      const Sums first = sum[0][0];
      sum[0][0] = sum[1][0];
      sum[1][0] = first;
    }
  }

  void store(std::int32_t* sums, std::int64_t stride) const {
    for (int i = 0; i < size; ++i) {
      (count == 2 ? sum[0][i] + sum[count - 1][i] : sum[0][i]).store(sums + i * stride);
    }
  }
};

/// Adds the groups of the next block to the sums of `tokens` tokens.
template <class Format, int tokens>
[[gnu::always_inline]] inline void add_block_s8(Groups<Format>& groups, const Bytes* inputs,
                                                Turns<tokens * Format::height>& sums) {
  for (const unsigned end = *++groups.starts; groups.group != end; groups.next(), sums.pass()) {
    const auto columns = Bytes::columns(groups.columns);
    for (int t = 0; t < tokens; ++t) {
      const auto picked = inputs[t].pick(columns);
      for (int r = 0; r < Format::height; ++r) {
        Sums& sum = sums.sum[0][t * Format::height + r];
        sum = dot(sum, picked, Bytes::columns(groups.codes + r * sparsekit::kGroup));
      }
    }
  }
}

/// One tile of lanes, from `position` on, for `tokens` tokens; `bytes` are those of the first.
template <class Format, int tokens>
inline void multiply_lanes_s8(const sparsekit::PackedWeight& weight, std::int64_t position, const std::uint8_t* bytes,
                              std::int64_t features, std::int32_t* sums, std::int64_t stride) {
  auto groups = Groups<Format>::of(weight, position);
  Turns<tokens * Format::height> sum;
  sum.begin();
  for (std::int64_t b = 0; b < weight.blocks; ++b, bytes += sparsekit::kSlide) {
    Bytes inputs[static_cast<std::size_t>(tokens)];
    for (int t = 0; t < tokens; ++t) inputs[t] = Bytes::load(bytes + t * features);
    add_block_s8<Format, tokens>(groups, inputs, sum);
  }
  sum.store(sums, stride);
}

template <class Format, int tile>
void spmv_quads_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                   sparsekit::RowRange rows) {
  constexpr int most = Format::height == 1 ? 8 : 4;
  constexpr int together = tile < most ? tile : most;
  constexpr std::int64_t window = Format::height == 1 ? sparsekit::kWindow : sparsekit::kWindow / 2;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  const std::int64_t features = weight.features();
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::RowRange range = lanes_of<Format>(rows);
  const std::int64_t lanes = sparsekit::padded_lanes(range.last - range.first);
  for (std::int64_t w = 0; w < lanes; w += window) {
    for (int t = 0; t < tile; t += together) {
      for (std::int64_t l = w; l < smaller(w + window, lanes); l += sparsekit::kLanes) {
        multiply_lanes_s8<Format, together>(weight, range.first + l, bytes + t * features, features,
                                            sums + t * Format::height * lanes + l, lanes);
      }
    }
  }
}

}  // namespace
