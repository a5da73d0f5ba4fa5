// GEMM of int4 weights (formats/dense_int4.h), for one token and more.
//
//   for each panel                        16 rows of the weight
//     for every few tokens                as many as registers hold the accumulators of
//       for each group                    128 input features
//         for each pair of quads          64 bytes of weights: a mask and a shift make 128 unsigned bytes
//           for each of the tokens        broadcast two quads, multiply and add pairs of bytes
//         sums += (sum of the group - 8 * sum of its inputs) * scale of the weights * scale of the inputs
//
// Weights are read once for a tile: half a byte each, which is what bounds a single token. A product of bytes is at
// most 15 * 127, so eight quads add up in 16 bits where an instruction set has no wider sums.
//
//   activation   head, a `TileRows`, then its tokens (tokens_s4.h)
//   sums         float [tokens, rows rounded up to 16]
#pragma once

#include "gemm.h"
#include "tokens_s4.h"

namespace {

/// Tokens computed together.
inline constexpr int kInt4Tokens = [] {
  constexpr int most = (kRegisters - 6) / kPanelVectors;
  return most < 1 ? 1 : most > 8 ? 8 : most;
}();

inline bool pack_rows_s4(const sparsekit::Input& input, sparsekit::Range features, std::int64_t padded_features,
                         void* packed) {
  auto* head = static_cast<std::uint8_t*>(packed);
  const std::int64_t stride = Int4Token::stride(padded_features);
  *reinterpret_cast<TileRows*>(head) = {head + kTileRowsBytes, stride, input.tokens};
  bool usable = true;
  for (std::int64_t t = 0; t < input.tokens; ++t) {
    std::uint8_t* token = head + kTileRowsBytes + t * stride;
    usable = pack_token_s4(input.data + t * input.stride, features.last, padded_features, token) && usable;
  }
  return usable;
}

/// Input features that are added before sums are widened.
inline constexpr std::int64_t kInt4Features =
    kNibbleQuads * sparsekit::kQuad < sparsekit::kGroup ? kNibbleQuads * sparsekit::kQuad : sparsekit::kGroup;

/// Adds pairs of quads of a panel, at most as many as do not overflow.
template <int tokens>
[[gnu::always_inline]] inline void add_pairs(const std::uint8_t* values, std::int64_t pairs,
                                             const Int4Token (&inputs)[static_cast<std::size_t>(tokens)],
                                             std::int64_t at, PanelSums<NibbleSum, tokens>& sums) {
  constexpr std::int64_t kBytes = Vec::width * sparsekit::kQuad;
  for (std::int64_t p = 0; p < pairs; ++p, at += 2 * sparsekit::kQuad) {
    NibbleQuad panel[kPanelVectors][2];
#pragma GCC unroll 16
    for (int v = 0; v < kPanelVectors; ++v, values += kBytes) NibbleQuad::load(values, panel[v]);
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t) {
      for (int half = 0; half < 2; ++half) {
        const auto x = SignedQuad::broadcast(inputs[t].bytes + at + half * static_cast<int>(sparsekit::kQuad));
#pragma GCC unroll 16
        for (int v = 0; v < kPanelVectors; ++v) sums.of[t][v].add(panel[v][half], x);
      }
    }
  }
}

/// Sums of the panel of `row` for `tokens` tokens.
template <int tokens>
void multiply_int4_panel(const sparsekit::PackedWeight& weight, std::int64_t row, const TileRows& rows, float* sums,
                         std::int64_t stride) {
  const std::int64_t features = weight.padded_features();
  const std::int64_t groups = sparsekit::groups_of(weight.in_features);
  const auto* values = static_cast<const std::uint8_t*>(weight.values) + row * features / 2;
  const sparsekit::Float16* scales = weight.group_scales + row * groups;
  Int4Token inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t) inputs[t] = Int4Token(rows.first + t * rows.stride, features);
  PanelSums<Vec, tokens> found;
  found.clear();
  for (std::int64_t g = 0; g < groups; ++g, scales += sparsekit::kSlice) {
    const std::int64_t end = min((g + 1) * sparsekit::kGroup, features);
    PanelSums<VecI32, tokens> group;
    group.clear();
    for (std::int64_t at = g * sparsekit::kGroup; at < end; at += kInt4Features) {
      PanelSums<NibbleSum, tokens> part;
      part.clear();
      const std::int64_t pairs = min(kInt4Features, end - at) / (2 * sparsekit::kQuad);
      add_pairs<tokens>(values, pairs, inputs, at, part);
      values += pairs * sparsekit::kSlice * sparsekit::kQuad;
      for (int t = 0; t < tokens; ++t) {
        for (int v = 0; v < kPanelVectors; ++v) group.of[t][v] = group.of[t][v] + part.of[t][v].widened();
      }
    }
    for (int t = 0; t < tokens; ++t) {
      for (int v = 0; v < kPanelVectors; ++v) {
        const Vec sum = to_floats(group.of[t][v]) - Vec::broadcast(inputs[t].offsets[g]);
        const Vec scale = Vec::load(scales + v * Vec::width) * Vec::broadcast(inputs[t].scales[g]);
        found.of[t][v] = fma(sum, scale, found.of[t][v]);
      }
    }
  }
  found.store(sums, stride);
}

template <int most = kInt4Tokens - 1>
void multiply_last_int4(const sparsekit::PackedWeight& weight, std::int64_t row, const TileRows& rows, float* sums,
                        std::int64_t stride) {
  if constexpr (most > 0) {
    if (rows.tokens == most) return multiply_int4_panel<most>(weight, row, rows, sums, stride);
    multiply_last_int4<most - 1>(weight, row, rows, sums, stride);
  }
}

inline void gemm_s4(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                    sparsekit::Range rows) {
  const auto& tile = *static_cast<const TileRows*>(activation);
  const std::int64_t stride = sparsekit::padded_to_slices(rows.last - rows.first);
  for (std::int64_t row = rows.first; row < rows.last; row += sparsekit::kSlice) {
    float* sums = static_cast<float*>(results) + (row - rows.first);
    TileRows left = tile;
    for (; left.tokens >= kInt4Tokens; left.tokens -= kInt4Tokens) {
      multiply_int4_panel<kInt4Tokens>(weight, row, left, sums, stride);
      left.first += kInt4Tokens * left.stride;
      sums += kInt4Tokens * stride;
    }
    multiply_last_int4(weight, row, left, sums, stride);
  }
}

}  // namespace
