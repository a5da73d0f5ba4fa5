// Sparse weight times a tile of tokens.
//
//   for each block of 128 input features      the block's part of the activation stays in L1 (128 * tile floats)
//     for each lane                           sums of the lane: registers, loaded and stored once a block
//       for each entry                        broadcast its values, fused multiply-adds of each with `vectors` vectors
//
// Per entry of one value: 5 bytes of weight (3 with 16 bits), a quarter of a load (values), 1 load (column), `vectors`
// loads and FMAs. Entries of four values load the input once for four times as many FMAs. Few sums would wait for their
// latency, so the four entries of a quad then add to as many sets of sums as eight registers hold.
//
// Where neighbouring lanes begin with the same columns (formats/pairs.h), two are multiplied at a time, and an input of
// both is loaded once: a load for every multiply-add is more than a core starts, as it has others to start too. Sums
// are added in the same order either way.
#pragma once

#include <cstddef>

#include "quads.h"
#include "tile_f32.h"

namespace {

/// Tokens from which the four columns of a quad are read by one load: a core that starts two loads of 64 bytes a cycle
/// (Zen 5) would wait for four more. Narrower vectors and tiles leave it time for them, as do blocks.
constexpr int kFewestTogether = Vector::width < 16 ? 1024 : 32;

constexpr unsigned chains_of(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

/// Whether the registers hold the sums of two lanes and a quad of values of each.
template <class Format, class Lane, int vectors>
constexpr bool kPairs =
    Format::height == 1 &&
    2 * static_cast<int>(chains_of(vectors)) * vectors + 2 * static_cast<int>(sparsekit::kQuad) <= kRegisters;

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

/// The sums of a lane while it is multiplied: several sets, which are added at the end.
template <class Lane, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void begin_sums(Lane (&sum)[chains][size], const float* sums, bool begin) {
  for (std::size_t v = 0; v < size; ++v) {
    sum[0][v] = begin ? Lane::zero() : Lane::load(sums + v * Lane::width);
    for (unsigned c = 1; c < chains; ++c) sum[c][v] = Lane::zero();
  }
}
template <class Lane, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void end_sums(Lane (&sum)[chains][size], float* sums) {
  for (std::size_t v = 0; v < size; ++v) {
    for (unsigned c = 1; c < chains; ++c) sum[0][v] = sum[0][v] + sum[c][v];
    sum[0][v].store(sums + v * Lane::width);
  }
}

/// The first values of the next four entries of a lane.
template <class Format, class Lane>
[[gnu::always_inline]] inline void broadcast_quad(const Entries<Format>& entries, Lane (&scale)[sparsekit::kQuad]) {
  if constexpr (Format::height == 1) {
    Lane::broadcast_four(entries.values, scale);
  } else {
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) scale[i] = Lane::broadcast(entries.value(i));
  }
}

/// The next four entries of a lane times the block of a tile.
template <int vectors, class Format, class Lane, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_quad(const Entries<Format>& entries, const float* block,
                                                 Lane (&sums)[chains][size]) {
  constexpr int tile = vectors * Lane::width;
  constexpr bool together = Format::height == 1 && tile >= kFewestTogether;
  Lane scale[sparsekit::kQuad];
  broadcast_quad(entries, scale);
  const QuadColumns columns = together ? entries.four_columns() : QuadColumns{};
  for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
    const float* input = together ? columns.template input<tile>(block, i) : entries.template input<tile>(block, i);
    add_entry<Format, Lane, vectors>(entries, input, i, scale[i], sums[i % chains]);
  }
}

/// All entries of a lane that are left times the block of a tile.
template <int vectors, class Format, class Lane, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_entries(Entries<Format> entries, const float* block,
                                                    Lane (&sums)[chains][size]) {
  for (unsigned left = entries.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, entries.next()) {
    multiply_quad<vectors>(entries, block, sums);
  }
  for (unsigned i = 0; i < entries.count % sparsekit::kQuad; ++i) {
    add_entry<Format, Lane, vectors>(entries, entries.template input<vectors * Lane::width>(block, i), i,
                                     Lane::broadcast(entries.value(i)), sums[0]);
  }
}

/// A vector that is used twice stays in a register: compilers like to read it twice from memory instead.
template <class Lane>
[[gnu::always_inline]] inline void keep_in_register(Lane& x) {
#if defined(__x86_64__)
  asm("" : "+v"(x.v));
#elif defined(__aarch64__)
  asm("" : "+w"(x.v));
#else
  (void)x;
#endif
}

/// Goes on as long as the next four entries of two lanes multiply the same inputs, which are then loaded once for both.
template <int vectors, class Format, class Lane, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_shared(Entries<Format>& a, Entries<Format>& b, const float* block,
                                                   Lane (&sums_a)[chains][size], Lane (&sums_b)[chains][size]) {
  constexpr int tile = vectors * Lane::width;
  for (; a.count >= sparsekit::kQuad && b.count >= sparsekit::kQuad; a.take(), b.take()) {
    const QuadColumns columns = a.four_columns();
    if (columns.bytes != b.four_columns().bytes) break;
    Lane scale_a[sparsekit::kQuad];
    Lane scale_b[sparsekit::kQuad];
    broadcast_quad(a, scale_a);
    broadcast_quad(b, scale_b);
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      const float* input = columns.template input<tile>(block, i);
      const unsigned chain = i % chains;
      for (int v = 0; v < vectors; ++v) {
        Lane x = Lane::load(input + v * Lane::width);
        keep_in_register(x);
        sums_a[chain][v] = fma(scale_a[i], x, sums_a[chain][v]);
        sums_b[chain][v] = fma(scale_b[i], x, sums_b[chain][v]);
      }
    }
  }
}

/// Two neighbouring lanes of a cell times the block of a tile; adds to their sums, or begins them.
template <class Format, class Lane, int vectors>
[[gnu::always_inline]] inline void multiply_pair(const Cell<Format>& cell, unsigned lane, const float* block,
                                                 bool begin, float* window) {
  constexpr int tile = vectors * Lane::width;
  constexpr unsigned chains = chains_of(vectors);
  Lane sums_a[chains][static_cast<std::size_t>(vectors)];
  Lane sums_b[chains][static_cast<std::size_t>(vectors)];
  float* out_a = window + cell.lanes[lane] * tile;
  float* out_b = window + cell.lanes[lane + 1] * tile;
  Entries<Format> a(cell, lane);
  Entries<Format> b(cell, lane + 1);
  begin_sums(sums_a, out_a, begin);
  begin_sums(sums_b, out_b, begin);
  multiply_shared<vectors>(a, b, block, sums_a, sums_b);
  multiply_entries<vectors>(a, block, sums_a);
  end_sums(sums_a, out_a);
  multiply_entries<vectors>(b, block, sums_b);
  end_sums(sums_b, out_b);
}

/// One lane of a cell times the block of a tile; adds to `sums`, or begins them.
template <class Format, class Lane, int vectors>
[[gnu::always_inline]] inline void multiply_lane(Entries<Format> entries, const float* block, bool begin, float* sums) {
  constexpr int size = vectors * Format::height;
  constexpr unsigned chains = chains_of(size);
  Lane sum[chains][static_cast<std::size_t>(size)];
  begin_sums(sum, sums, begin);
  multiply_entries<vectors>(entries, block, sum);
  end_sums(sum, sums);
}

/// All lanes times the block of a tile, two at a time. A function of its own, so that registers are shared out well.
template <class Format, class Lane, int vectors>
[[gnu::noinline]] void multiply_pairs(const sparsekit::PackedWeight& weight, std::int64_t b, sparsekit::RowRange lanes,
                                      const float* block, float* sums) {
  constexpr int tile = vectors * Lane::width;
  for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
    const auto cell = Cell<Format>::of(weight, b, first);
    float* window = sums + (sparsekit::window_of(first) - lanes.first) * tile;
    prefetch_columns(cell);
    for (unsigned lane = 0; lane < sparsekit::kLanes; lane += 2) {
      prefetch_share<2>(cell, lane);
      multiply_pair<Format, Lane, vectors>(cell, lane, block, b == 0, window);
    }
  }
}

/// Whether the lanes of a weight are multiplied two at a time: where the longest of its first block share inputs.
template <class Format>
inline bool in_pairs(const sparsekit::PackedWeight& weight) {
  return weight.tiles > 0 && Cell<Format>::of(weight, 0, 0).shares();
}

template <class Format, class Lane, int vectors>
void spmm_quads(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::RowRange rows) {
  constexpr int tile = vectors * Lane::width;
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  const bool pairs = kPairs<Format, Lane, vectors> && in_pairs<Format>(weight);
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const float* block = activation + b * sparsekit::kBlockWidth * tile;
    if constexpr (kPairs<Format, Lane, vectors>) {
      if (pairs) {
        multiply_pairs<Format, Lane, vectors>(weight, b, lanes, block, sums);
        continue;
      }
    }
    for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
      const auto cell = Cell<Format>::of(weight, b, first);
      float* window = sums + (sparsekit::window_of(first) - lanes.first) * Format::height * tile;
      prefetch_columns(cell);
      if constexpr (vectors * Format::height == 1) {
        // Where a lane takes little time, much of it goes into finding it: the place of each of four is a constant.
        for (unsigned four = 0; four < sparsekit::kLanes; four += 4) {
          prefetch_share<4>(cell, four);
#pragma GCC unroll 4
          for (unsigned lane = four; lane < four + 4; ++lane) {
            const std::size_t place = cell.lanes[lane];
            multiply_lane<Format, Lane, vectors>(Entries<Format>(cell, lane), block, b == 0,
                                                 window + place * static_cast<std::size_t>(tile));
          }
        }
        continue;
      }
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        prefetch_share<1>(cell, lane);
        multiply_lane<Format, Lane, vectors>(Entries<Format>(cell, lane), block, b == 0,
                                             window + cell.lanes[lane] * Format::height * tile);
      }
    }
  }
}

}  // namespace
