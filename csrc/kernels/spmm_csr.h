// SpMM: sparse weight in column blocks of CSR times a tile of tokens.
//
//   for each column block (256 inputs)        its part of the activation stays in L1 (256 * tile floats)
//     for each row group                      accumulators in registers, loaded and stored once a column block
//       for each entry                        broadcast its values, one FMA with each of `vectors` vectors of inputs
//
// Per nonzero: 5 bytes of weight, read in order; a quarter of a load (values), 1 load (column), `vectors` loads and
// FMAs. An entry of a 4x1 block loads the input once for four times as many FMAs. Beginning and ending a row takes as
// long as a few entries, so a column block is as wide as a byte can address.
#pragma once

#include <cstddef>

#include "csr_rows.h"
#include "sell_slice.h"
#include "tile_f32.h"

namespace {

/// Sets of accumulators, to hide FMA latency.
constexpr unsigned csr_chains_of(int sums) { return sums >= 8 ? 1 : sums >= 4 ? 2 : 4; }

/// The accumulators of a row group: those of each row and vector, in several sets, which are added at the end.
template <class Format, class V, int vectors>
struct CsrSums {
  static constexpr int tile = vectors * V::width;
  static constexpr int size = vectors * Format::height;
  static constexpr unsigned chains = csr_chains_of(size);
  V v[chains][static_cast<std::size_t>(size)];

  [[gnu::always_inline]] CsrSums(const float* sums, bool begin) {
    for (int i = 0; i < size; ++i) {
      v[0][i] = begin ? V::zero() : V::load(sums + i * V::width);
      for (unsigned c = 1; c < chains; ++c) v[c][i] = V::zero();
    }
  }

  [[gnu::always_inline]] void store(float* sums) {
    for (int i = 0; i < size; ++i) {
      for (unsigned c = 1; c < chains; ++c) v[0][i] = v[0][i] + v[c][i];
      v[0][i].store(sums + i * V::width);
    }
  }

  /// Adds the product of one value and an entry's inputs to the accumulators of row `r`.
  [[gnu::always_inline]] void add(unsigned chain, int r, V value, const V (&x)[static_cast<std::size_t>(vectors)]) {
    for (int i = 0; i < vectors; ++i) v[chain][r * vectors + i] = fma(value, x[i], v[chain][r * vectors + i]);
  }
};

template <class V, int vectors>
[[gnu::always_inline]] inline void load_inputs(const float* input, V (&x)[static_cast<std::size_t>(vectors)]) {
  for (int i = 0; i < vectors; ++i) x[i] = V::load(input + i * V::width);
}

/// Single rows: four entries at a time, whose values take one load.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void add_entries(CsrRow<Format> row, const float* inputs,
                                               CsrSums<Format, V, vectors>& sums) {
  constexpr std::size_t tile = CsrSums<Format, V, vectors>::tile;
  V x[static_cast<std::size_t>(vectors)];
  for (; row.count >= sparsekit::kQuad; row.skip(sparsekit::kQuad)) {
    V value[sparsekit::kQuad];
    V::broadcast_adjacent(row.values, value);
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) {
      load_inputs<V, vectors>(inputs + row.columns[i] * tile, x);
      sums.add(i % sums.chains, 0, value[i], x);
    }
  }
  for (unsigned i = 0; i < row.count; ++i) {
    load_inputs<V, vectors>(inputs + row.columns[i] * tile, x);
    sums.add(0, 0, V::broadcast(row.values + i), x);
  }
}

/// 4x1 blocks: an entry's four values take one load.
template <class Format, class V, int vectors>
[[gnu::always_inline]] inline void add_blocks(const CsrRow<Format>& row, const float* inputs,
                                              CsrSums<Format, V, vectors>& sums) {
  constexpr std::size_t tile = CsrSums<Format, V, vectors>::tile;
  const auto add = [&](unsigned i, unsigned chain) {
    V value[4];
    V::broadcast_adjacent(row.values + i * 4, value);
    V x[static_cast<std::size_t>(vectors)];
    load_inputs<V, vectors>(inputs + row.columns[i] * tile, x);
    for (int r = 0; r < 4; ++r) sums.add(chain, r, value[r], x);
  };
  unsigned i = 0;
  for (; i + sums.chains <= row.count; i += sums.chains) {
    for (unsigned c = 0; c < sums.chains; ++c) add(i + c, c);
  }
  for (; i < row.count; ++i) add(i, 0);
}

template <class Format, class V, int vectors>
void spmm_csr(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  constexpr int tile = vectors * V::width;
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const float* inputs = activation + weight.first_column(b) * tile;
    for_csr_rows<Format>(weight, b, groups, [&](std::int64_t group, const CsrRow<Format>& row) {
      float* group_sums = sums + group * Format::height * tile;
      CsrSums<Format, V, vectors> accumulators(group_sums, b == 0);
      if constexpr (Format::height == 1) {
        add_entries(row, inputs, accumulators);
      } else {
        add_blocks(row, inputs, accumulators);
      }
      accumulators.store(group_sums);
    });
  }
}

/// With the transposed weight: the gradient for a layer's input. The range starts and ends at borders of column blocks,
/// so two tasks never write the same sums.
///
///   for each column block in the range         its sums stay in cache (256 * tile floats)
///     for each row group                       the gradients of its output features: `vectors` vectors each
///       for each entry                         sums[column] += value * gradient
template <class Format, class V, int vectors>
void spmm_csr_transposed(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                         sparsekit::Range features) {
  constexpr int tile = vectors * V::width;
  const auto* gradient = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t i = 0; i < (features.last - features.first) * tile; ++i) sums[i] = 0.0F;
  const sparsekit::Range groups = row_groups_of<Format>({0, weight.out_features});
  for (std::int64_t first = features.first; first < features.last; first += weight.width) {
    float* block_sums = sums + (first - features.first) * tile;
    for_csr_rows<Format>(weight, first / weight.width, groups, [&](std::int64_t group, const CsrRow<Format>& row) {
      const std::int64_t first_row = group * Format::height;
      const std::int64_t count = min(Format::height, weight.out_features - first_row);
      for (unsigned i = 0; i < row.count; ++i) {
        float* sum = block_sums + row.columns[i] * static_cast<std::size_t>(tile);
        for (std::int64_t r = 0; r < count; ++r) {
          const V value = V::broadcast(row.values + i * static_cast<unsigned>(Format::height) + r);
          const float* x = gradient + (first_row + r) * tile;
          for (int at = 0; at < tile; at += V::width) {
            fma(value, V::load(x + at), V::load(sum + at)).store(sum + at);
          }
        }
      }
    });
  }
}

}  // namespace
