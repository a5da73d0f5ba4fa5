// Sparse int8 weight times tokens of bytes, 16 rows at a time, for instruction sets that pick bytes from registers.
//
//   for each block of 128 input features
//     for every eight tokens                    their bytes of the block sit in registers, two for each
//       for each window of 64 rows
//         for each tile of 16 rows              one sum a row and token: one register a token
//           for each group                      64 codes, 64 columns
//             for each token                    pick 64 bytes, multiply, and add four by four: two instructions
//         the sums of each row, brought from positions to output features, added to the sums
//
// Per group: 128 bytes of weight, whatever the number of tokens; they stay in L1 for all tokens of a tile.
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_s8.h"

namespace {

/// The sums of a cell's 16 rows for every token.
template <int tokens>
[[gnu::always_inline]] inline void multiply_cell_s8(const Cell<Codes>& cell, const Bytes* inputs,
                                                    Sums (*sums)[kTilesOfWindow], std::int64_t tile) {
  Sums sum[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) sum[t] = Sums::zero();
  for (std::size_t g = 0; g < cell.groups; ++g) {
    const auto columns = Bytes::columns(cell.columns + g * sparsekit::kGroup);
    const auto codes = Bytes::columns(cell.values + g * sparsekit::kGroup);
    for (int t = 0; t < tokens; ++t) sum[t] = dot(sum[t], inputs[t].pick(columns), codes);
  }
  for (int t = 0; t < tokens; ++t) sums[t][tile] = sum[t];
}

/// One block times `tokens` tokens; `bytes` and `sums` are those of the first.
template <int tokens>
inline void multiply_block_s8(const sparsekit::PackedWeight& weight, std::int64_t block, const std::uint8_t* bytes,
                              std::int32_t* sums, std::int64_t sums_stride, sparsekit::RowRange rows) {
  Bytes inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Bytes::load(bytes + t * weight.blocks * sparsekit::kBlockWidth);
  for (std::int64_t first = rows.first; first < rows.last; first += sparsekit::kWindow) {
    const std::int64_t tiles = smaller(kTilesOfWindow, (rows.last - first + sparsekit::kLanes - 1) / sparsekit::kLanes);
    Sums found[static_cast<std::size_t>(tokens)][kTilesOfWindow];
    for (std::int64_t i = 0; i < tiles; ++i) {
      multiply_cell_s8<tokens>(Cell<Codes>::of(weight, block, first + i * sparsekit::kLanes), inputs, found, i);
    }
    for (std::int64_t i = 0; i < tiles; ++i) {
      const Positions positions(weight.positions + weight.at(block, first + i * sparsekit::kLanes));
      for (int t = 0; t < tokens; ++t) {
        std::int32_t* sum = sums + t * sums_stride + (first - rows.first) + i * sparsekit::kLanes;
        const Sums more = positions.choose(found[t]);
        (block == 0 ? more : Sums::load(sum) + more).store(sum);
      }
    }
  }
}

template <int tile>
void spmv_quads_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                   sparsekit::RowRange rows) {
  constexpr int together = tile < 8 ? tile : 8;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  auto* sums = static_cast<std::int32_t*>(results);
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const std::int64_t stride = sparsekit::padded_lanes(rows.last - rows.first);
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (int t = 0; t < tile; t += together) {
      multiply_block_s8<together>(weight, b, bytes + t * features + b * sparsekit::kBlockWidth, sums + t * stride,
                                  stride, rows);
    }
  }
}

}  // namespace
