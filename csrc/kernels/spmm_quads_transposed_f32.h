// Transposed sparse weight times a tile of tokens: the gradient for a layer's input.
//
//   for each block of input features in the range    its sums stay in L1 (128 * tile floats)
//     for each row                                   the row's gradient: `vectors` vectors
//       for each nonzero (value, column)             sums[column] += value * gradient
//
// Per nonzero: 5 bytes of weight, `vectors` loads, FMAs and stores. The range starts and ends at block borders, so two
// tasks never write the same sums.
#pragma once

#include "quads.h"

namespace {

/// sums[column] += value * row, for one nonzero.
template <class Lane, int vectors>
inline void add_scaled(float value, const float* row, float* sum) {
  const Lane scale = Lane::broadcast(value);
  for (int v = 0; v < vectors; ++v) {
    const int at = v * Lane::width;
    fma(scale, Lane::load(row + at), Lane::load(sum + at)).store(sum + at);
  }
}

/// Adds one row of a cell times its gradient to the sums of the block, which have no place for padding.
template <class Lane, int vectors>
[[gnu::always_inline]] inline void add_row(Row row, const float* gradient, float* block) {
  constexpr int tile = vectors * Lane::width;
  for (unsigned left = row.count; left > 0;) {
    const unsigned together = left < sparsekit::kQuad ? left : sparsekit::kQuad;
    for (unsigned i = 0; i < together; ++i) {
      add_scaled<Lane, vectors>(row.values[i], gradient, block + row.columns[i] * tile);
    }
    left -= together;
    row.next();
  }
}

template <class Lane, int vectors>
void spmm_quads_transposed_f32(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                               sparsekit::RowRange features) {
  constexpr int tile = vectors * Lane::width;
  const auto* gradient = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  for (std::int64_t first = features.first; first < features.last; first += sparsekit::kBlockWidth) {
    float* block = sums + (first - features.first) * tile;
    for (std::int64_t r = 0; r < weight.out_features; r += sparsekit::kLanes) {
      const Cell cell = Cell::of(weight, first / sparsekit::kBlockWidth, r);
      const float* window = gradient + sparsekit::window_of(r) * tile;
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        add_row<Lane, vectors>(Row(cell, lane), window + cell.rows[lane] * tile, block);
      }
    }
  }
}

}  // namespace
