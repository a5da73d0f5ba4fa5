// Transposed sparse weight times a tile of tokens: the gradient for a layer's input.
//
//   for each block of input features in the range    its sums stay in L1 (128 * tile floats)
//     for each lane                                  the gradients of its output features: `vectors` vectors each
//       for each entry (values, column)              sums[column] += value * gradient, for each value
//
// Per entry: 5 bytes of weight, `vectors` loads, FMAs and stores. The range starts and ends at block borders, so two
// tasks never write the same sums.
#pragma once

#include "partial.h"
#include "quads.h"

namespace {

/// Adds entry `i` of a lane times the gradients of the lane's `rows` output features to its input feature's sums.
template <class Format, class Lane, int vectors>
inline void scatter_entry(const Entries<Format>& entries, unsigned i, int rows, const float* gradient, float* sum) {
  constexpr int tile = vectors * Lane::width;
  for (int r = 0; r < rows; ++r) {
    const Lane scale = Lane::broadcast(entries.value(i, r));
    for (int at = 0; at < tile; at += Lane::width) {
      fma(scale, Lane::load(gradient + r * tile + at), Lane::load(sum + at)).store(sum + at);
    }
  }
}

/// Adds one lane of a cell times its gradients to the sums of the block, which have no place for padding.
template <class Format, class Lane, int vectors>
[[gnu::always_inline]] inline void scatter_lane(Entries<Format> entries, int rows, const float* gradient,
                                                float* block) {
  for (unsigned left = entries.count; left > 0;) {
    const unsigned together = left < sparsekit::kQuad ? left : sparsekit::kQuad;
    for (unsigned i = 0; i < together; ++i) {
      scatter_entry<Format, Lane, vectors>(entries, i, rows, gradient,
                                           block + entries.columns[i] * vectors * Lane::width);
    }
    left -= together;
    entries.next();
  }
}

template <class Format, class Lane, int vectors>
void spmm_quads_transposed(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                           sparsekit::RowRange features) {
  constexpr int tile = vectors * Lane::width;
  const auto* gradient = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  for (std::int64_t first = features.first; first < features.last; first += sparsekit::kBlockWidth) {
    float* block = sums + (first - features.first) * tile;
    for (std::int64_t l = 0; l < weight.tiles * sparsekit::kLanes; l += sparsekit::kLanes) {
      const auto cell = Cell<Format>::of(weight, first / sparsekit::kBlockWidth, l);
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        const std::int64_t row = (sparsekit::window_of(l) + cell.lanes[lane]) * Format::height;
        const auto rows = static_cast<int>(smaller(Format::height, weight.out_features - row));
        scatter_lane<Format, Lane, vectors>(Entries<Format>(cell, lane), rows, gradient + row * tile, block);
      }
    }
  }
}

}  // namespace
