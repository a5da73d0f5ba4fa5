// Sparse int8 weight in 4x1 blocks times tokens of bytes, 16 lanes of four rows at a time, for instruction sets that
// pick bytes from registers.
//
//   for each tile of 16 lanes
//     for every four tokens                     their sums sit in registers, four for each
//       for each block of 128 input features    the tokens' bytes of the block in registers, two for each
//         for each group                        64 columns, four times 64 codes
//           for each token                      pick 64 bytes once, multiply with the codes of each row of the lanes
//   when storing: the sums of each window, brought from positions to rows
//
// Per group: 320 bytes of weight; those of a tile stay in L1 or L2 for all tokens.
//
//   sums     int32 [tile, 4, positions], lanes rounded up to 16
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_s8.h"

namespace {

/// Adds one cell to the sums of `tokens` tokens, four each; `bytes` are those of the first, in the cell's block.
template <int tokens>
[[gnu::always_inline]] inline void add_cell_4x1_s8(const Cell<Codes4x1>& cell, const std::uint8_t* bytes,
                                                   std::int64_t features, Sums* sum) {
  Bytes inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Bytes::load(bytes + t * features);
  const std::int8_t* codes = cell.values;
  const std::uint8_t* columns = cell.columns;
  for (unsigned g = 0; g < cell.groups; ++g, codes += Codes4x1::values, columns += sparsekit::kGroup) {
    const auto picks = Bytes::columns(columns);
    for (int t = 0; t < tokens; ++t) {
      const auto picked = inputs[t].pick(picks);
      for (int r = 0; r < Codes4x1::height; ++r) {
        Sums& sums = sum[t * Codes4x1::height + r];
        sums = dot(sums, picked, Bytes::columns(codes + r * sparsekit::kGroup));
      }
    }
  }
}

/// One tile of lanes, from position `first` on, for `tokens` tokens.
template <int tokens>
inline void multiply_tile_4x1_s8(const sparsekit::PackedWeight& weight, std::int64_t first, const std::uint8_t* bytes,
                                 std::int32_t* sums, std::int64_t stride) {
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  constexpr int size = tokens * Codes4x1::height;
  Sums sum[static_cast<std::size_t>(size)];
  for (int i = 0; i < size; ++i) sum[i] = Sums::zero();
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    add_cell_4x1_s8<tokens>(Cell<Codes4x1>::of(weight, b, first), bytes + b * sparsekit::kBlockWidth, features, sum);
  }
  for (int i = 0; i < size; ++i) sum[i].store(sums + i * stride);
}

template <int tile>
void spmv_quads_4x1_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                       sparsekit::RowRange rows) {
  constexpr int together = tile < 4 ? tile : 4;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const sparsekit::RowRange range = lanes_of<Codes4x1>(rows);
  const std::int64_t lanes = sparsekit::padded_lanes(range.last - range.first);
  auto* sums = static_cast<std::int32_t*>(results);
  for (std::int64_t l = 0; l < lanes; l += sparsekit::kLanes) {
    for (int t = 0; t < tile; t += together) {
      multiply_tile_4x1_s8<together>(weight, range.first + l, bytes + t * features,
                                     sums + t * Codes4x1::height * lanes + l, lanes);
    }
  }
}

/// 16 lanes of four rows and where their sums are.
struct LaneRows {
  Positions positions;         // in the window
  const std::int32_t* window;  // sums of the first token and the first row of each lane, by position
  std::int64_t lanes;          // of the window
  std::int64_t stride;         // to the next row of each lane
  std::int64_t row;            // first output feature
  std::int64_t last;           // first one that does not exist
};

/// Brings the sums of 16 lanes into the order of rows and stores them; `whole` when the window has all its lanes and
/// the lanes all their rows.
template <bool whole, class Activate>
inline void store_lanes_4x1_s8(const sparsekit::PackedWeight& weight, const TokenScale* tokens, const LaneRows& at,
                               const sparsekit::Output& out, const Activate& activate) {
  RowScales scales[Codes4x1::height];
  for (int r = 0; r < Codes4x1::height; ++r) {
    scales[r] = RowScales::of(weight, out, smaller(at.row + r * Vector::width, at.last), at.last);
  }
  const std::int32_t* sums = at.window;
  float* y = out.data + at.row;
  for (std::int64_t t = 0; t < out.tokens; ++t, sums += Codes4x1::height * at.stride, y += out.stride) {
    Sums rows[Codes4x1::height];
    for (int r = 0; r < Codes4x1::height; ++r) {
      Sums from[kTilesOfWindow];
      for (std::int64_t i = 0; i < kTilesOfWindow; ++i) {
        const bool there = whole || i * sparsekit::kLanes < at.lanes;
        from[i] = there ? Sums::load(sums + r * at.stride + i * sparsekit::kLanes) : Sums::zero();
      }
      rows[r] = at.positions.choose(from);
    }
    interleave(rows);
    for (int r = 0; r < Codes4x1::height; ++r) {
      const Vector found = activate(scales[r].output(rows[r], tokens[t]));
      __builtin_prefetch(y + (Codes4x1::height + r) * Vector::width, 1);
      if (whole) {
        found.store(y + r * Vector::width);
      } else {
        store_up_to(found, y + r * Vector::width, scales[r].count);
      }
    }
  }
}

inline void store_sums_4x1_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                              sparsekit::RowRange rows, const sparsekit::Output& out) {
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  const std::int64_t lanes = sparsekit::lanes_for(rows.last - rows.first, Codes4x1::height);
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t l = 0; l < lanes; l += sparsekit::kLanes) {
      const std::int64_t window = sparsekit::window_of(l);
      const LaneRows at{Positions::by_four(weight.positions + rows.first / Codes4x1::height + l),
                        sums + window,
                        lanes - window,
                        lanes,
                        rows.first + l * Codes4x1::height,
                        rows.last};
      if (at.lanes >= sparsekit::kWindow && at.row + sparsekit::kLanes * Codes4x1::height <= at.last) {
        store_lanes_4x1_s8<true>(weight, tokens, at, out, activate);
      } else {
        store_lanes_4x1_s8<false>(weight, tokens, at, out, activate);
      }
    }
  });
}

}  // namespace
