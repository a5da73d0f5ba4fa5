// Sparse int8 weight times a few tokens of bytes, 16 lanes at a time, for instruction sets that look bytes up in
// tables.
//
//   for each tile of 16 lanes
//     for each token                            sums of each output feature of a lane in registers
//       for each sliding block                  128 bytes of the token in registers, as tables of 16
//         for each group                        look 64 bytes up once, multiply with the codes of each feature
//   the sums of each window, brought from positions to output features
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

/// One tile of lanes, from `position` on, times one token; `sums` are [height, 16].
template <class Format>
inline void look_up_lanes_s8(const sparsekit::PackedWeight& weight, std::int64_t position, const std::uint8_t* bytes,
                             std::int32_t* sums) {
  constexpr int parts = sparsekit::kGroup / kBytesOfVector;
  constexpr int size = parts * Format::height;
  auto groups = Groups<Format>::of(weight, position);
  Sums sum[static_cast<std::size_t>(size)];
  for (int i = 0; i < size; ++i) sum[i] = Sums::zero();
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const ByteTable table = ByteTable::load(bytes + weight.start(b));
    for (const unsigned end = *++groups.starts; groups.group != end; groups.next()) {
      for (int part = 0; part < parts; ++part) {
        const TokenBytes picked = table.pick(groups.columns + part * kBytesOfVector);
        for (int r = 0; r < Format::height; ++r) {
          const auto codes = FourCodes::load(groups.codes + r * sparsekit::kGroup + part * kBytesOfVector);
          sum[r * parts + part] = dot(sum[r * parts + part], picked, codes);
        }
      }
    }
  }
  for (int i = 0; i < size; ++i) sum[i].store(sums + i * Vector::width);
}

/// Brings the sums of `lanes` lanes, from the first of a window on, from positions to output features.
template <class Format>
inline void order_sums_s8(const std::uint8_t* positions, std::int64_t lanes, std::int32_t* sums) {
  constexpr std::int64_t size = Format::height * sparsekit::kLanes;
  std::int32_t from[kTilesOfWindow][Format::height][sparsekit::kLanes];
  __builtin_memcpy(from, sums, static_cast<std::size_t>(lanes / sparsekit::kLanes * size) * sizeof(std::int32_t));
  for (std::int64_t l = 0; l < lanes; ++l) {
    const std::int64_t p = positions[l];
    for (int r = 0; r < Format::height; ++r) {
      sums[l * Format::height + r] = from[p / sparsekit::kLanes][r][p % sparsekit::kLanes];
    }
  }
}

template <class Format, int tile>
void spmv_quads_lookup_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                          sparsekit::RowRange rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(tile);
  auto* sums = static_cast<std::int32_t*>(results);
  const std::int64_t features = weight.features();
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  const std::int64_t stride = sparsekit::padded_lanes(lanes.last - lanes.first) * Format::height;
  for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
    std::int32_t* at = sums + (first - lanes.first) * Format::height;
    for (int t = 0; t < tile; ++t) look_up_lanes_s8<Format>(weight, first, bytes + t * features, at + t * stride);
  }
  for (int t = 0; t < tile; ++t) {
    for (std::int64_t at = 0; at < stride; at += sparsekit::kWindow * Format::height) {
      order_sums_s8<Format>(weight.positions + lanes.first + at / Format::height,
                            smaller(sparsekit::kWindow, (stride - at) / Format::height), sums + t * stride + at);
    }
  }
}

}  // namespace
