// Sparse weight in the `lanes` layout times a few tokens, 16 rows at a time.
//
//   for each tile of 16 rows                  `tile` accumulators of 16 lanes, one for each token
//     for each block of 32 input features     every token's 32 inputs sit in registers
//       for each step                         16 values, 16 one-byte columns
//         for each token                      pick the inputs of the 16 columns from registers, one FMA
//
// Picking from registers (one two-table permute with AVX-512) replaces the gather from memory that bounds CSR at about
// one cycle a nonzero; padding costs less than that: at 80% sparsity 1.66 entries are stored for a nonzero, and one
// token still runs three times faster than with the gather (benchmarks/README.md).
// A padded entry picks 0, so that infinities and NaN of inputs without a weight stay out of the sums.
// Per step: 80 bytes of weight, for each token one pick and one FMA.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

template <int tile>
void spmv_lanes_f32(const sparsekit::PackedWeight& weight, const float* activation, float* sums,
                    sparsekit::RowRange rows) {
  constexpr std::size_t groups = static_cast<std::size_t>(sparsekit::kLanes) / Vector::width;
  const std::int64_t features = weight.blocks * weight.block_width;
  const std::int64_t sums_stride = sparsekit::padded_lanes(rows.last - rows.first);
  for (std::int64_t r = rows.first; r < rows.last; r += sparsekit::kLanes) {
    const std::uint32_t* start = weight.starts + r / sparsekit::kLanes * weight.blocks;
    for (std::size_t g = 0; g < groups; ++g) {
      Vector sum[static_cast<std::size_t>(tile)];
      for (int t = 0; t < tile; ++t) sum[t] = Vector::zero();
      for (std::int64_t b = 0; b < weight.blocks; ++b) {
        Table32 inputs[static_cast<std::size_t>(tile)];
        for (int t = 0; t < tile; ++t) {
          inputs[t] = Table32::load(activation + t * features + b * weight.block_width);
        }
        for (std::size_t s = start[b]; s < start[b + 1]; ++s) {
          const std::size_t entry = s * sparsekit::kLanes + g * Vector::width;
          const Vector value = Vector::load(weight.values + entry);
          const auto columns = Table32::columns(weight.columns + entry);
          for (int t = 0; t < tile; ++t) sum[t] = fma(value, inputs[t].pick(columns), sum[t]);
        }
      }
      for (int t = 0; t < tile; ++t) {
        sum[t].store(sums + t * sums_stride + (r - rows.first) + static_cast<std::int64_t>(g * Vector::width));
      }
    }
  }
}

}  // namespace
