// Transposed sparse weight in the `panel` layout times a tile of tokens: the gradient for a layer's input.
//
//   for each block of input features in the range    its sums stay in cache (block_width * tile floats)
//     for each row                                   the row's gradient: `vectors` registers
//       for each nonzero (value, column)             sums[column] += value * gradient
//
// Per nonzero: 5 bytes of weight, `vectors` loads, FMAs and stores. The range starts and ends at block borders, so two
// tasks never write the same sums.
#pragma once

#include "views.h"

namespace {

/// sums[column] += value * row, for one nonzero.
template <int vectors>
inline void add_scaled(float value, const float* row, float* sum) {
  const Vector scale = Vector::broadcast(value);
  for (int v = 0; v < vectors; ++v) {
    const int at = v * Vector::width;
    fma(scale, Vector::load(row + at), Vector::load(sum + at)).store(sum + at);
  }
}

template <int vectors>
void spmm_panel_transposed_f32(const sparsekit::PackedWeight& weight, const float* gradient, float* sums,
                               sparsekit::RowRange features) {
  constexpr int tile = vectors * Vector::width;
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  for (std::int64_t first = features.first; first < features.last; first += weight.block_width) {
    float* block = sums + (first - features.first) * tile;
    const std::uint32_t* start = weight.starts + first / weight.block_width * weight.out_features;
    for (std::int64_t r = 0; r < weight.out_features; ++r) {
      for (std::uint32_t i = start[r]; i < start[r + 1]; ++i) {
        add_scaled<vectors>(weight.values[i], gradient + r * tile,
                            block + static_cast<std::int64_t>(weight.columns[i]) * tile);
      }
    }
  }
}

}  // namespace
