// Sparse int8 weight times a few tokens of bytes, 16 lanes at a time, for instruction sets that look bytes up in
// tables.
//
//   for each block of 128 input features
//     for each token                            its bytes of the block sit in registers, as tables of 16
//       for each tile of 16 lanes               sums of each output feature of a lane in registers
//         for each group                        look 64 bytes up once, multiply with the codes of each feature
//         the sums, added to those of the lanes' output features
//
// Looking up takes a few instructions for each table, and replaces three loads a nonzero.
//
//   sums     int32 [tile, rows], rows rounded up to whole tiles
#pragma once

#include <cstddef>

#include "quads.h"
#include "tokens_s8.h"

namespace {

/// Codes that one vector of bytes holds.
inline constexpr int kBytesOfVector = 4 * Vector::width;

/// Adds one cell times one token's block to `sums`, of the output features of the window.
template <class Format>
inline void add_cell_s8(const Cell<Format>& cell, const ByteTable& table, std::int32_t* sums) {
  constexpr int parts = sparsekit::kGroup / kBytesOfVector;
  constexpr int size = parts * Format::height;
  Sums sum[static_cast<std::size_t>(size)];
  for (int i = 0; i < size; ++i) sum[i] = Sums::zero();
  for (std::size_t g = 0; g < cell.groups; ++g) {
    for (int part = 0; part < parts; ++part) {
      const TokenBytes picked = table.pick(cell.columns + g * sparsekit::kGroup + part * kBytesOfVector);
      for (int r = 0; r < Format::height; ++r) {
        const auto codes =
            FourCodes::load(cell.values + g * Format::values + r * sparsekit::kGroup + part * kBytesOfVector);
        sum[r * parts + part] = dot(sum[r * parts + part], picked, codes);
      }
    }
  }
  std::int32_t found[Format::height][sparsekit::kLanes];
  for (int i = 0; i < size; ++i) sum[i].store(found[i / parts] + i % parts * Vector::width);
  for (int lane = 0; lane < sparsekit::kLanes; ++lane) {
    std::int32_t* rows = sums + cell.lanes[lane] * Format::height;
    for (int r = 0; r < Format::height; ++r) rows[r] += found[r][lane];
  }
}

template <class Format, int tile>
void spmv_quads_lookup_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                          sparsekit::RowRange rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  auto* sums = static_cast<std::int32_t*>(results);
  const std::int64_t features = weight.blocks * sparsekit::kBlockWidth;
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  const std::int64_t stride = sparsekit::padded_lanes(lanes.last - lanes.first) * Format::height;
  for (std::int64_t i = 0; i < tile * stride; ++i) sums[i] = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (int t = 0; t < tile; ++t) {
      const ByteTable table = ByteTable::load(bytes + t * features + b * sparsekit::kBlockWidth);
      for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
        std::int32_t* window = sums + t * stride + (sparsekit::window_of(first) - lanes.first) * Format::height;
        add_cell_s8(Cell<Format>::of(weight, b, first), table, window);
      }
    }
  }
}

}  // namespace
