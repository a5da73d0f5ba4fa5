// SpMM with the transposed weight and a tile of tokens: the gradient for a layer's input.
//
//   for each column block in the range         its sums stay in L1 (128 * tile floats)
//     for each slice, and each row of it       the gradient of its output feature: `vectors` vectors
//       for each entry (value, column)         sums[column] += value * gradient
//
// Per nonzero: 5 bytes of weight, `vectors` loads, FMAs and stores. The range starts and ends at borders of column
// blocks, so two tasks never write the same sums.
#pragma once

#include "partial.h"
#include "sell_slice.h"

namespace {

/// Adds entry `i` of a row group times the gradients of its `rows` output features to its input feature's sums.
template <class Format, class V, int vectors>
inline void scatter_entry(const Entries<Format>& entries, unsigned i, int rows, const float* gradient, float* sum) {
  constexpr int tile = vectors * V::width;
  for (int r = 0; r < rows; ++r) {
    const V value = V::broadcast(entries.value(i, r));
    for (int at = 0; at < tile; at += V::width) {
      fma(value, V::load(gradient + r * tile + at), V::load(sum + at)).store(sum + at);
    }
  }
}

/// Adds one row group of a slice times its gradients to a column block's sums, which have no place for padding.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void scatter_row_group(Entries<Format> entries, int rows, const float* gradient,
                                                     float* block_sums) {
  for (unsigned left = entries.count; left > 0;) {
    const unsigned together = left < sparsekit::kQuad ? left : sparsekit::kQuad;
    for (unsigned i = 0; i < together; ++i) {
      scatter_entry<Format, V, vectors>(entries, i, rows, gradient,
                                        block_sums + entries.columns[i] * vectors * V::width);
    }
    left -= together;
    entries.next();
  }
}

template <class Format, class V, int vectors>
void spmm_sell_transposed(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                          sparsekit::Range features) {
  constexpr int tile = vectors * V::width;
  const auto* gradient = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  for (std::int64_t first = features.first; first < features.last; first += sparsekit::kColumnBlock) {
    float* block_sums = sums + (first - features.first) * tile;
    for (std::int64_t first_slot = 0; first_slot < weight.slices * sparsekit::kSlice; first_slot += sparsekit::kSlice) {
      const auto slice = Slice<Format>::of(weight, first / sparsekit::kColumnBlock, first_slot);
      for (unsigned slot = 0; slot < sparsekit::kSlice; ++slot) {
        const std::int64_t row = (sparsekit::sort_window_of(first_slot) + slice.slot_to_row[slot]) * Format::height;
        const auto rows = static_cast<int>(min(Format::height, weight.out_features - row));
        scatter_row_group<Format, V, vectors>(Entries<Format>(slice, slot), rows, gradient + row * tile, block_sums);
      }
    }
  }
}

}  // namespace
