// Sparse int8 weight times one token of bytes, lane by lane, for instruction sets without a kernel of their own.
//
//   for each block of 128 input features        128 bytes of the token
//     for each lane
//       for each output feature of the lane     sums[feature] += dot(its codes, token[columns of the lane])
//
// Per nonzero: 2 bytes of weight; three loads.
#pragma once

#include "quads.h"
#include "tokens_s8.h"

namespace {

template <class Format>
inline void dot_lane_s8(Entries<Format> entries, const std::uint8_t* x, std::int32_t* sums) {
  for (unsigned i = 0; i < entries.count; ++i) {
    const std::int32_t input = x[entries.columns[i % sparsekit::kQuad]];
    for (int r = 0; r < Format::height; ++r) sums[r] += *entries.value(i % sparsekit::kQuad, r) * input;
    if (i % sparsekit::kQuad == sparsekit::kQuad - 1) entries.next();
  }
}

template <class Format>
void spmv_quads_rows_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                        sparsekit::RowRange rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(1);
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  for (std::int64_t r = 0; r < sparsekit::padded_lanes(lanes.last - lanes.first) * Format::height; ++r) sums[r] = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint8_t* x = bytes + weight.start(b);
    for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
      const auto cell = Cell<Format>::of(weight, b, first);
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        const std::int64_t at = sparsekit::window_of(first) - lanes.first + cell.lanes[lane];
        dot_lane_s8(Entries<Format>(cell, lane), x, sums + at * Format::height);
      }
    }
  }
}

}  // namespace
