// Sparse weight in the `lanes` layout times a tile of tokens.
//
//   for each group of blocks (128 input features)   the group's part of the activation stays in L1
//     for each row of the range                     sums of the row: `vectors` registers
//       for each block, for each real entry         broadcast the value, `vectors` FMAs from memory; padding is skipped
//
// Per nonzero: one value and one column, 16 entries apart: a row tile's block is about 1 KB, so that the 16 rows of the
// tile find it in L1; 1 broadcast, `vectors` loads and `vectors` FMAs.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

inline constexpr std::int64_t kBlocksTogether = 4;

template <int vectors>
void spmm_lanes_f32(const sparsekit::PackedWeight& weight, const float* activation, float* sums,
                    sparsekit::RowRange rows) {
  constexpr int tile = vectors * Vector::width;
  for (std::int64_t first = 0; first < weight.blocks; first += kBlocksTogether) {
    const std::int64_t last = first + kBlocksTogether < weight.blocks ? first + kBlocksTogether : weight.blocks;
    for (std::int64_t r = rows.first; r < rows.last; ++r) {
      float* row_sums = sums + (r - rows.first) * tile;
      Vector sum[static_cast<std::size_t>(vectors)];
      for (int v = 0; v < vectors; ++v) {
        sum[v] = first == 0 ? Vector::zero() : Vector::load(row_sums + v * Vector::width);
      }
      const std::int64_t lane = r % sparsekit::kLanes;
      for (std::int64_t b = first; b < last; ++b) {
        const std::int64_t cell = r / sparsekit::kLanes * weight.blocks + b;
        const std::int64_t entry = static_cast<std::int64_t>(weight.starts[cell]) * sparsekit::kLanes + lane;
        const float* block = activation + b * weight.block_width * tile;
        const int count = weight.counts[cell * sparsekit::kLanes + lane];
        for (int s = 0; s < count; ++s) {
          const std::int64_t i = entry + s * sparsekit::kLanes;
          const Vector value = Vector::broadcast(weight.values[i]);
          const float* x = block + (weight.columns[i] & sparsekit::kColumnMask) * tile;
          for (int v = 0; v < vectors; ++v) sum[v] = fma(value, Vector::load(x + v * Vector::width), sum[v]);
        }
      }
      for (int v = 0; v < vectors; ++v) sum[v].store(row_sums + v * Vector::width);
    }
  }
}

}  // namespace
