// Sparse weight times a tile of tokens.
//
//   for each block of input features          the block's part of the activation stays in L1 (block_width * tile
//   floats)
//     for each row of the range               sums of the row: `vectors` registers, loaded and stored once a block
//       for each nonzero (value, column)      broadcast the value, `vectors` fused multiply-adds from memory
//
// Per nonzero: 5 bytes of weight (value and one-byte column), 1 broadcast, `vectors` loads and `vectors` FMAs.
// Rows are independent chains, so out-of-order execution overlaps short segments.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

template <int vectors>
void spmm_panel_f32(const sparsekit::PackedWeight& weight, const float* activation, float* sums,
                    sparsekit::RowRange rows) {
  constexpr int tile = vectors * Vector::width;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* block = activation + b * weight.block_width * tile;
    const std::uint32_t* segment = weight.starts + b * weight.out_features;
    for (std::int64_t r = rows.first; r < rows.last; ++r) {
      float* row_sums = sums + (r - rows.first) * tile;
      Vector sum[static_cast<std::size_t>(vectors)];
      for (int v = 0; v < vectors; ++v) {
        sum[v] = b == 0 ? Vector::zero() : Vector::load(row_sums + v * Vector::width);
      }
      for (std::uint32_t i = segment[r]; i < segment[r + 1]; ++i) {
        const Vector value = Vector::broadcast(weight.values[i]);
        const float* x = block + static_cast<std::int64_t>(weight.columns[i]) * tile;
        for (int v = 0; v < vectors; ++v) sum[v] = fma(value, Vector::load(x + v * Vector::width), sum[v]);
      }
      for (int v = 0; v < vectors; ++v) sum[v].store(row_sums + v * Vector::width);
    }
  }
}

}  // namespace
