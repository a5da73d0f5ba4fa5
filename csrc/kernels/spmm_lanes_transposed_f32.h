// Transposed sparse weight in the `lanes` layout times a tile of tokens: the gradient for a layer's input.
//
//   for each block of input features in the range    its sums stay in L1 (32 * tile floats)
//     for each tile of 16 rows, for each row         the row's gradient: `vectors` registers
//       for each real entry (value, column)          sums[column] += value * gradient
//
// Per nonzero: 5 bytes of weight, `vectors` loads, FMAs and stores.
#pragma once

#include "spmm_panel_transposed_f32.h"
#include "views.h"

namespace {

template <int vectors>
void spmm_lanes_transposed_f32(const sparsekit::PackedWeight& weight, const float* gradient, float* sums,
                               sparsekit::RowRange features) {
  constexpr int tile = vectors * Vector::width;
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  for (std::int64_t first = features.first; first < features.last; first += weight.block_width) {
    float* block = sums + (first - features.first) * tile;
    for (std::int64_t r = 0; r < weight.out_features; ++r) {
      const std::int64_t cell = r / sparsekit::kLanes * weight.blocks + first / weight.block_width;
      const std::int64_t lane = r % sparsekit::kLanes;
      const std::int64_t entry = static_cast<std::int64_t>(weight.starts[cell]) * sparsekit::kLanes + lane;
      const int count = weight.counts[cell * sparsekit::kLanes + lane];
      for (int s = 0; s < count; ++s) {
        const std::int64_t i = entry + s * sparsekit::kLanes;
        add_scaled<vectors>(weight.values[i], gradient + r * tile,
                            block + (weight.columns[i] & sparsekit::kColumnMask) * tile);
      }
    }
  }
}

}  // namespace
