// Sparse weight times a tile of tokens.
//
//   for each block of 128 input features      the block's part of the activation stays in L1 (128 * tile floats)
//     for each lane                           sums of the lane: registers, loaded and stored once a block
//       for each entry                        broadcast its values, fused multiply-adds of each with `vectors` vectors
//
// Per entry of one value: 5 bytes of weight (3 with 16 bits), a quarter of a load (values), 1 load (column), `vectors`
// loads and FMAs. Entries of four values load the input once for four times as many FMAs. Few sums would wait for their
// latency, so the four entries of a quad then add to as many sets of sums as eight registers hold.
#pragma once

#include <cstddef>

#include "quads.h"
#include "tile_f32.h"

namespace {

/// Tokens from which the four columns of a quad are read by one load: a core that starts two loads of 64 bytes a cycle
/// (Zen 5) would wait for four more. Narrower vectors and tiles leave it time for them, as do blocks.
constexpr int kFewestTogether = Vector::width < 16 ? 1024 : 32;

constexpr unsigned chains_of(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

/// sums += scale * x
template <int vectors, class Lane>
inline void multiply_add(Lane scale, const Lane* x, Lane* sums) {
  for (int v = 0; v < vectors; ++v) sums[v] = fma(scale, x[v], sums[v]);
}

/// Adds entry `i` of a lane, which multiplies `input`, to the lane's sums, `vectors` for each output feature; `first`
/// is the entry's first value.
template <class Format, class Lane, int vectors>
[[gnu::always_inline]] inline void add_entry(const Entries<Format>& entries, const float* input, unsigned i, Lane first,
                                             Lane* sum) {
  if constexpr (Format::height == 1) {
    for (int v = 0; v < vectors; ++v) sum[v] = fma(first, Lane::load(input + v * Lane::width), sum[v]);
  } else {
    Lane x[static_cast<std::size_t>(vectors)];
    for (int v = 0; v < vectors; ++v) x[v] = Lane::load(input + v * Lane::width);
    for (int r = 0; r < Format::height; ++r) {
      const Lane scale = r == 0 ? first : Lane::broadcast(entries.value(i, r));
      for (int v = 0; v < vectors; ++v) sum[r * vectors + v] = fma(scale, x[v], sum[r * vectors + v]);
    }
  }
}

/// One lane of a cell times the block of a tile; adds to `sums`, or begins them.
template <class Format, class Lane, int vectors>
[[gnu::always_inline]] inline void multiply_lane(Entries<Format> entries, const float* block, bool begin, float* sums) {
  constexpr int size = vectors * Format::height;
  constexpr int tile = vectors * Lane::width;
  constexpr bool together = Format::height == 1 && tile >= kFewestTogether;
  constexpr unsigned chains = chains_of(size);
  Lane sum[chains][static_cast<std::size_t>(size)];
  for (int v = 0; v < size; ++v) {
    sum[0][v] = begin ? Lane::zero() : Lane::load(sums + v * Lane::width);
    for (unsigned c = 1; c < chains; ++c) sum[c][v] = Lane::zero();
  }
  for (unsigned left = entries.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, entries.next()) {
    Lane scale[sparsekit::kQuad];
    if constexpr (Format::height == 1) {
      Lane::broadcast_four(entries.values, scale);
    } else {
      for (unsigned i = 0; i < sparsekit::kQuad; ++i) scale[i] = Lane::broadcast(entries.value(i));
    }
    const QuadColumns columns = together ? entries.four_columns() : QuadColumns{};
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      const float* input = together ? columns.template input<tile>(block, i) : entries.template input<tile>(block, i);
      add_entry<Format, Lane, vectors>(entries, input, i, scale[i], sum[i % chains]);
    }
  }
  for (unsigned i = 0; i < entries.count % sparsekit::kQuad; ++i) {
    add_entry<Format, Lane, vectors>(entries, entries.template input<tile>(block, i), i,
                                     Lane::broadcast(entries.value(i)), sum[0]);
  }
  for (int v = 0; v < size; ++v) {
    for (unsigned c = 1; c < chains; ++c) sum[0][v] = sum[0][v] + sum[c][v];
    sum[0][v].store(sums + v * Lane::width);
  }
}

template <class Format, class Lane, int vectors>
void spmm_quads(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::RowRange rows) {
  constexpr int tile = vectors * Lane::width;
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* block = activation + b * sparsekit::kBlockWidth * tile;
    for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
      const auto cell = Cell<Format>::of(weight, b, first);
      float* window = sums + (sparsekit::window_of(first) - lanes.first) * Format::height * tile;
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        prefetch_share(cell, lane);
        multiply_lane<Format, Lane, vectors>(Entries<Format>(cell, lane), block, b == 0,
                                             window + cell.lanes[lane] * Format::height * tile);
      }
    }
  }
}

}  // namespace
