// SpMM: sparse weight times a tile of tokens.
//
//   for each column block (128 inputs)        its part of the activation stays in L1 (128 * tile floats)
//     for each slice, and each row of it      accumulators in registers, loaded and stored once a column block
//       for each entry                        broadcast its value, one FMA with each of `vectors` vectors of inputs
//
// Per nonzero: 5 bytes of weight (3 with 16 bits), a quarter of a load (values), 1 load (column), `vectors` loads and
// FMAs. An entry of a 4x1 block loads the input once for four times as many FMAs. Few accumulators would wait for the
// latency of an FMA, so the four entries of a quad then add to as many sets of them as eight registers hold.
//
// Where neighboring rows begin with the same columns (formats/sell_pairs.h), two are multiplied at a time, and an input
// of both is loaded once: a core does not start a load for every FMA, as it has others to start too. Sums are added in
// the same order either way.
#pragma once

#include <cstddef>

#include "sell_slice.h"
#include "tile_f32.h"

namespace {

/// Tokens from which the four columns of a quad are read by one load: a core that starts two loads of 64 bytes a cycle
/// (Zen 5) would wait for four more. Narrower vectors and tiles leave it time for them, as do 4x1 blocks.
constexpr int kMinQuadLoadTokens = Vec::width < 16 ? 1024 : 32;

constexpr unsigned chains_of(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

/// Whether the registers hold the accumulators of two rows and a quad of values of each.
template <class Format, class V, int vectors>
constexpr bool kFitsPairs =
    Format::height == 1 &&
    2 * static_cast<int>(chains_of(vectors)) * vectors + 2 * static_cast<int>(sparsekit::kQuad) <= kRegisters;

/// Adds entry `i` of a row group, which multiplies `input`, to its accumulators, `vectors` for each row; `first` is the
/// entry's first value.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void add_entry(const Entries<Format>& entries, const float* input, unsigned i, V first,
                                             V* accumulator) {
  if constexpr (Format::height == 1) {
    for (int v = 0; v < vectors; ++v) accumulator[v] = fma(first, V::load(input + v * V::width), accumulator[v]);
  } else {
    V x[static_cast<std::size_t>(vectors)];
    for (int v = 0; v < vectors; ++v) x[v] = V::load(input + v * V::width);
    for (int r = 0; r < Format::height; ++r) {
      const V value = r == 0 ? first : V::broadcast(entries.value(i, r));
      for (int v = 0; v < vectors; ++v) {
        accumulator[r * vectors + v] = fma(value, x[v], accumulator[r * vectors + v]);
      }
    }
  }
}

/// The accumulators of a row group: several sets, which are added at the end.
template <class V, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void begin_accumulators(V (&accumulators)[chains][size], const float* sums, bool begin) {
  for (std::size_t v = 0; v < size; ++v) {
    accumulators[0][v] = begin ? V::zero() : V::load(sums + v * V::width);
    for (unsigned c = 1; c < chains; ++c) accumulators[c][v] = V::zero();
  }
}
template <class V, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void end_accumulators(V (&accumulators)[chains][size], float* sums) {
  for (std::size_t v = 0; v < size; ++v) {
    for (unsigned c = 1; c < chains; ++c) accumulators[0][v] = accumulators[0][v] + accumulators[c][v];
    accumulators[0][v].store(sums + v * V::width);
  }
}

/// The first values of the next quad of a row group.
template <class Format, class V>
[[gnu::always_inline]] inline void broadcast_quad(const Entries<Format>& entries, V (&value)[sparsekit::kQuad]) {
  if constexpr (Format::height == 1) {
    V::broadcast_four(entries.values, value);
  } else {
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) value[i] = V::broadcast(entries.value(i));
  }
}

/// The next quad of a row group times a column block's inputs of a tile.
template <int vectors, class Format, class V, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_quad(const Entries<Format>& entries, const float* inputs,
                                                 V (&accumulators)[chains][size]) {
  constexpr int tile = vectors * V::width;
  constexpr bool together = Format::height == 1 && tile >= kMinQuadLoadTokens;
  V value[sparsekit::kQuad];
  broadcast_quad(entries, value);
  const QuadColumns columns = together ? entries.quad_columns() : QuadColumns{};
  for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
    const float* input = together ? columns.template input<tile>(inputs, i) : entries.template input<tile>(inputs, i);
    add_entry<Format, V, vectors>(entries, input, i, value[i], accumulators[i % chains]);
  }
}

/// All entries of a row group that are left times a column block's inputs of a tile.
template <int vectors, class Format, class V, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_entries(Entries<Format> entries, const float* inputs,
                                                    V (&accumulators)[chains][size]) {
  for (unsigned left = entries.count; left >= sparsekit::kQuad; left -= sparsekit::kQuad, entries.next()) {
    multiply_quad<vectors>(entries, inputs, accumulators);
  }
  for (unsigned i = 0; i < entries.count % sparsekit::kQuad; ++i) {
    add_entry<Format, V, vectors>(entries, entries.template input<vectors * V::width>(inputs, i), i,
                                  V::broadcast(entries.value(i)), accumulators[0]);
  }
}

/// Keeps a vector that is used twice in a register; compilers would load it twice.
template <class V>
[[gnu::always_inline]] inline void keep_in_register(V& x) {
#if defined(__x86_64__)
  asm("" : "+v"(x.v));
#elif defined(__aarch64__)
  asm("" : "+w"(x.v));
#else
  (void)x;
#endif
}

/// Goes on as long as the next quads of two rows multiply the same inputs, which are then loaded once for both.
template <int vectors, class Format, class V, unsigned chains, std::size_t size>
[[gnu::always_inline]] inline void multiply_shared(Entries<Format>& a, Entries<Format>& b, const float* inputs,
                                                   V (&accumulators_a)[chains][size],
                                                   V (&accumulators_b)[chains][size]) {
  constexpr int tile = vectors * V::width;
  for (; a.count >= sparsekit::kQuad && b.count >= sparsekit::kQuad; a.take(), b.take()) {
    const QuadColumns columns = a.quad_columns();
    if (columns.bytes != b.quad_columns().bytes) break;
    V value_a[sparsekit::kQuad];
    V value_b[sparsekit::kQuad];
    broadcast_quad(a, value_a);
    broadcast_quad(b, value_b);
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      const float* input = columns.template input<tile>(inputs, i);
      const unsigned chain = i % chains;
      for (int v = 0; v < vectors; ++v) {
        V x = V::load(input + v * V::width);
        keep_in_register(x);
        accumulators_a[chain][v] = fma(value_a[i], x, accumulators_a[chain][v]);
        accumulators_b[chain][v] = fma(value_b[i], x, accumulators_b[chain][v]);
      }
    }
  }
}

/// Two neighboring rows of a slice times a column block's inputs of a tile; adds to their sums, or begins them.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void multiply_pair(const Slice<Format>& slice, unsigned slot, const float* inputs,
                                                 bool begin, float* window) {
  constexpr int tile = vectors * V::width;
  constexpr unsigned chains = chains_of(vectors);
  V accumulators_a[chains][static_cast<std::size_t>(vectors)];
  V accumulators_b[chains][static_cast<std::size_t>(vectors)];
  float* out_a = window + slice.slot_to_row[slot] * tile;
  float* out_b = window + slice.slot_to_row[slot + 1] * tile;
  Entries<Format> a(slice, slot);
  Entries<Format> b(slice, slot + 1);
  begin_accumulators(accumulators_a, out_a, begin);
  begin_accumulators(accumulators_b, out_b, begin);
  multiply_shared<vectors>(a, b, inputs, accumulators_a, accumulators_b);
  multiply_entries<vectors>(a, inputs, accumulators_a);
  end_accumulators(accumulators_a, out_a);
  multiply_entries<vectors>(b, inputs, accumulators_b);
  end_accumulators(accumulators_b, out_b);
}

/// One row group of a slice times a column block's inputs of a tile; adds to `sums`, or begins them.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void multiply_row_group(Entries<Format> entries, const float* inputs, bool begin,
                                                      float* sums) {
  constexpr int size = vectors * Format::height;
  constexpr unsigned chains = chains_of(size);
  V accumulators[chains][static_cast<std::size_t>(size)];
  begin_accumulators(accumulators, sums, begin);
  multiply_entries<vectors>(entries, inputs, accumulators);
  end_accumulators(accumulators, sums);
}

/// All rows times a column block's inputs of a tile, two at a time. A function of its own, for register allocation.
template <class Format, class V, int vectors>
[[gnu::noinline]] void multiply_pairs(const sparsekit::PackedWeight& weight, std::int64_t b, sparsekit::Range groups,
                                      const float* inputs, float* sums) {
  constexpr int tile = vectors * V::width;
  for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
    const auto slice = Slice<Format>::of(weight, b, first);
    float* window = sums + (sparsekit::sort_window_of(first) - groups.first) * tile;
    prefetch_columns(slice);
    for (unsigned slot = 0; slot < sparsekit::kSlice; slot += 2) {
      prefetch_share<2>(slice, slot);
      multiply_pair<Format, V, vectors>(slice, slot, inputs, b == 0, window);
    }
  }
}

/// Whether the rows of a weight are multiplied two at a time: where the longest of its first column block share inputs.
template <class Format>
inline bool in_pairs(const sparsekit::PackedWeight& weight) {
  return weight.slices > 0 && Slice<Format>::of(weight, 0, 0).shares();
}

template <class Format, class V, int vectors>
void spmm_sell(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  constexpr int tile = vectors * V::width;
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  const bool pairs = kFitsPairs<Format, V, vectors> && in_pairs<Format>(weight);
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const float* inputs = activation + b * sparsekit::kColumnBlock * tile;
    if constexpr (kFitsPairs<Format, V, vectors>) {
      if (pairs) {
        multiply_pairs<Format, V, vectors>(weight, b, groups, inputs, sums);
        continue;
      }
    }
    for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
      const auto slice = Slice<Format>::of(weight, b, first);
      float* window = sums + (sparsekit::sort_window_of(first) - groups.first) * Format::height * tile;
      prefetch_columns(slice);
      if constexpr (vectors * Format::height == 1) {
        // For short rows, address computation dominates: offsets of four rows are constants.
        for (unsigned four = 0; four < sparsekit::kSlice; four += 4) {
          prefetch_share<4>(slice, four);
#pragma GCC unroll 4
          for (unsigned slot = four; slot < four + 4; ++slot) {
            const std::size_t place = slice.slot_to_row[slot];
            multiply_row_group<Format, V, vectors>(Entries<Format>(slice, slot), inputs, b == 0,
                                                   window + place * static_cast<std::size_t>(tile));
          }
        }
        continue;
      }
      for (unsigned slot = 0; slot < sparsekit::kSlice; ++slot) {
        prefetch_share<1>(slice, slot);
        multiply_row_group<Format, V, vectors>(Entries<Format>(slice, slot), inputs, b == 0,
                                               window + slice.slot_to_row[slot] * Format::height * tile);
      }
    }
  }
}

}  // namespace
