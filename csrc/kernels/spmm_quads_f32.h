// Sparse weight times a tile of tokens.
//
//   for each block of 128 input features      the block's part of the activation stays in L1 (128 * tile floats)
//     for each row                            sums of the row: `vectors` registers, loaded and stored once a block
//       for each nonzero (value, column)      broadcast the value, `vectors` fused multiply-adds from memory
//
// Per nonzero: 5 bytes of weight, a quarter of a load (values), 1 load (column), `vectors` loads and FMAs. A narrow
// tile would wait for the latency of its few sums, so the four entries of a quad add to as many sets of sums as eight
// registers hold.
#pragma once

#include <cstddef>

#include "quads.h"
#include "tile_f32.h"

namespace {

constexpr unsigned chains_of(int vectors) { return vectors >= 8 ? 1 : vectors >= 4 ? 2 : 4; }

/// sums += scale * x
template <int vectors, class Lane>
inline void multiply_add(Lane scale, const float* x, Lane* sums) {
  for (int v = 0; v < vectors; ++v) sums[v] = fma(scale, Lane::load(x + v * Lane::width), sums[v]);
}

/// One row of a cell times the block of a tile; adds to `sums`, or begins them.
template <class Lane, int vectors>
[[gnu::always_inline]] inline void multiply_row(Row row, const float* block, bool begin, float* sums) {
  constexpr int tile = vectors * Lane::width;
  constexpr unsigned chains = chains_of(vectors);
  Lane sum[chains][static_cast<std::size_t>(vectors)];
  for (int v = 0; v < vectors; ++v) {
    sum[0][v] = begin ? Lane::zero() : Lane::load(sums + v * Lane::width);
    for (unsigned c = 1; c < chains; ++c) sum[c][v] = Lane::zero();
  }
  for (unsigned left = row.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, row.next()) {
    Lane scale[sparsekit::kQuad];
    Lane::broadcast_four(row.values, scale);
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      multiply_add<vectors>(scale[i], row.input<tile>(block, i), sum[i % chains]);
    }
  }
  for (unsigned i = 0; i < row.count % sparsekit::kQuad; ++i) {
    multiply_add<vectors>(Lane::broadcast(row.values[i]), row.input<tile>(block, i), sum[0]);
  }
  for (int v = 0; v < vectors; ++v) {
    for (unsigned c = 1; c < chains; ++c) sum[0][v] = sum[0][v] + sum[c][v];
    sum[0][v].store(sums + v * Lane::width);
  }
}

template <class Lane, int vectors>
void spmm_quads_f32(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                    sparsekit::RowRange rows) {
  constexpr int tile = vectors * Lane::width;
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* block = activation + b * sparsekit::kBlockWidth * tile;
    for (std::int64_t first = rows.first; first < rows.last; first += sparsekit::kLanes) {
      const Cell cell = Cell::of(weight, b, first);
      float* window = sums + (sparsekit::window_of(first) - rows.first) * tile;
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        prefetch_share(cell, lane);
        multiply_row<Lane, vectors>(Row(cell, lane), block, b == 0, window + cell.rows[lane] * tile);
      }
    }
  }
}

}  // namespace
