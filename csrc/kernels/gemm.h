// GEMM: dense weight times a tile of tokens.
//
//   for each panel                        16 rows of the weight
//     for every few tokens                as many as registers hold the accumulators of
//       for each input feature            the weights of the panel, loaded once for these tokens
//         for each of the tokens          broadcast its input, multiply and add
//
// Sums stay in registers from the first input feature to the last, and a panel in cache from the first token of the
// tile to the last.
//
//   activation   head, a `TileRows`; bytes of tokens behind it (gemm_s8.h), floats where the caller has them
//   sums         [tokens, rows rounded up to 16]
#pragma once

#include <cstddef>

#include "partial.h"
#include "table.h"

namespace {

/// Tokens of a tile: enough that reading the weight is a small part of the work.
inline constexpr int kGemmTile = 48;

/// Vectors of a panel's rows.
inline constexpr int kPanelVectors = static_cast<int>(sparsekit::kSlice) / Vec::width;

/// Tokens computed together: what is left of the registers holds weights and an input.
inline constexpr int kGemmTokens = [] {
  constexpr int most = (kRegisters - 4) / kPanelVectors;
  return most < 1 ? 1 : most > 12 ? 12 : most;
}();

/// The tokens of a tile, one every `stride` bytes.
struct TileRows {
  const std::uint8_t* first;
  std::int64_t stride;
  std::int64_t tokens;
};

/// Bytes before what belongs to the tokens.
inline constexpr std::int64_t kTileRowsBytes = 64;

/// Floats stay where they are.
inline bool pack_rows_f32(const sparsekit::Input& input, sparsekit::Range, std::int64_t, void* packed) {
  constexpr auto size = static_cast<std::int64_t>(sizeof(float));
  *static_cast<TileRows*>(packed) = {reinterpret_cast<const std::uint8_t*>(input.data), input.stride * size,
                                     input.tokens};
  return true;
}

/// Sums of a panel's rows for so many tokens. Loops over them are unrolled early: else compilers leave them in memory.
template <class V, int tokens>
struct PanelSums {
  V of[static_cast<std::size_t>(tokens)][static_cast<std::size_t>(kPanelVectors)];

  [[gnu::always_inline]] void clear() {
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanelVectors; ++v) of[t][v] = V::zero();
    }
  }

  template <class Sum>
  void store(Sum* sums, std::int64_t stride) const {
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanelVectors; ++v) of[t][v].store(sums + t * stride + v * Vec::width);
    }
  }
};

/// Sums of floats of the panel at `values` for `tokens` tokens.
template <class Value, int tokens>
void multiply_panel(const sparsekit::PackedWeight& weight, const Value* values, const TileRows& rows, float* sums,
                    std::int64_t stride) {
  PanelSums<Vec, tokens> found;
  found.clear();
  for (std::int64_t f = 0; f < weight.in_features; ++f, values += sparsekit::kSlice) {
    Vec panel[kPanelVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kPanelVectors; ++v) panel[v] = Vec::load(values + v * Vec::width);
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t) {
      const Vec input = Vec::broadcast(reinterpret_cast<const float*>(rows.first + t * rows.stride) + f);
#pragma GCC unroll 16
      for (int v = 0; v < kPanelVectors; ++v) found.of[t][v] = fma(panel[v], input, found.of[t][v]);
    }
  }
  found.store(sums, stride);
}

/// The last tokens of a tile, fewer than are computed together.
template <class Value, class Sum, int most = kGemmTokens - 1>
void multiply_last(const sparsekit::PackedWeight& weight, const Value* values, const TileRows& rows, Sum* sums,
                   std::int64_t stride) {
  if constexpr (most > 0) {
    if (rows.tokens == most) return multiply_panel<Value, most>(weight, values, rows, sums, stride);
    multiply_last<Value, Sum, most - 1>(weight, values, rows, sums, stride);
  }
}

template <class Value, class Sum>
void gemm(const sparsekit::PackedWeight& weight, const void* activation, void* results, sparsekit::Range rows) {
  const auto& tile = *static_cast<const TileRows*>(activation);
  const std::int64_t stride = sparsekit::padded_to_slices(rows.last - rows.first);
  for (std::int64_t row = rows.first; row < rows.last; row += sparsekit::kSlice) {
    const Value* values = static_cast<const Value*>(weight.values) + row * weight.padded_features();
    Sum* sums = static_cast<Sum*>(results) + (row - rows.first);
    TileRows left = tile;
    for (; left.tokens >= kGemmTokens; left.tokens -= kGemmTokens) {
      multiply_panel<Value, kGemmTokens>(weight, values, left, sums, stride);
      left.first += kGemmTokens * left.stride;
      sums += kGemmTokens * stride;
    }
    multiply_last<Value, Sum>(weight, values, left, sums, stride);
  }
}

}  // namespace
