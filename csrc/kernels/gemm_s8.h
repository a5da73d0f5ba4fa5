// GEMM of int8 weights: tokens are quantized to bytes, as in tokens_s8.h, and four input features, a quad, multiplied
// and added together. Where that takes several products (`kQuadParts`), quads lie as these need them:
//
//   one part     the four bytes, less `kByteOffset`
//   two parts    the first and third, then the second and fourth, of 16 bits each
//
//   activation   head, then `TokenScale` of each token, then its quads, [tile, in_features / 4]
#pragma once

#include "gemm.h"
#include "tokens_s8.h"

namespace {

inline constexpr std::int64_t kGemmHead = kTileRowsBytes + head_bytes(kGemmTile);

/// Bytes of a packed quad, and input features that are quantized before they are brought into its order.
inline constexpr std::int64_t kQuadBytes = 4 * kQuadParts;
inline constexpr std::int64_t kQuantizedTogether = 256;

inline void pack_quads(const std::uint8_t* bytes, std::int64_t quads, std::uint8_t* packed) {
  static_assert(kQuadParts == 1 || kByteOffset == 0);
  for (std::int64_t q = 0; q < quads; ++q) {
    std::uint32_t quad;
    __builtin_memcpy(&quad, bytes + q * 4, sizeof quad);
    std::uint32_t parts[2] = {quad ^ (0x01010101U * static_cast<std::uint32_t>(kByteOffset)), 0};
    if (kQuadParts == 2) {
      parts[0] = quad & 0x00FF00FFU;
      parts[1] = quad >> 8 & 0x00FF00FFU;
    }
    __builtin_memcpy(packed + q * kQuadBytes, parts, kQuadBytes);
  }
}

inline void pack_token_s8(const float* x, std::int64_t features, TokenScale scale, std::uint8_t* packed) {
  const Vec inverse = Vec::broadcast(1.0F / scale.scale);
  for (std::int64_t f = 0; f < features; f += kQuantizedTogether) {
    std::uint8_t bytes[kQuantizedTogether] = {};
    const std::int64_t count = min(kQuantizedTogether, features - f);
    quantize(x + f, count, inverse, scale.zero_point, bytes);
    pack_quads(bytes, (count + 3) / 4, packed + f * kQuadParts);
  }
}

inline bool pack_rows_s8(const sparsekit::Input& input, sparsekit::Range features, std::int64_t padded_features,
                         void* packed) {
  auto* head = static_cast<std::uint8_t*>(packed);
  auto* scales = reinterpret_cast<TokenScale*>(head + kTileRowsBytes);
  const std::int64_t stride = padded_features * kQuadParts;
  *reinterpret_cast<TileRows*>(head) = {head + kGemmHead, stride, input.tokens};
  bool usable = true;
  for (std::int64_t t = 0; t < input.tokens; ++t) {
    const float* x = input.data + t * input.stride;
    scales[t] = scale_of(x, features.last);
    if (scales[t].scale == 0.0F) {
      usable = false;
    } else {
      pack_token_s8(x, features.last, scales[t], head + kGemmHead + t * stride);
    }
  }
  return usable;
}

template <int part, int tokens>
[[gnu::always_inline]] inline void add_quad_part(const std::int8_t* values, const TileRows& rows, std::int64_t at,
                                                 PanelSums<VecI32, tokens>& found) {
  QuadValues panel[kPanelVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kPanelVectors; ++v) {
    panel[v] = QuadValues::load<part>(values + v * Vec::width * static_cast<int>(sparsekit::kQuad));
  }
#pragma GCC unroll 16
  for (int t = 0; t < tokens; ++t) {
    const std::uint8_t* bytes = rows.first + t * rows.stride + at + part * 4;
    const auto input = QuadInput::broadcast(bytes);
#pragma GCC unroll 16
    for (int v = 0; v < kPanelVectors; ++v) found.of[t][v] = dot(found.of[t][v], input, panel[v]);
  }
}

/// Sums of integers of the panel at `values` for `tokens` tokens.
template <class Value, int tokens>
void multiply_panel(const sparsekit::PackedWeight& weight, const std::int8_t* values, const TileRows& rows,
                    std::int32_t* sums, std::int64_t stride) {
  PanelSums<VecI32, tokens> found;
  found.clear();
  const std::int64_t end = weight.padded_features() * kQuadParts;
  for (std::int64_t at = 0; at < end; at += kQuadBytes, values += sparsekit::kSlice * sparsekit::kQuad) {
    add_quad_part<0>(values, rows, at, found);
    if constexpr (kQuadParts == 2) add_quad_part<1>(values, rows, at, found);
  }
  found.store(sums, stride);
}

inline void store_rows_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* sums,
                          sparsekit::Range rows, const sparsekit::Output& out) {
  store_sums_s8(weight, static_cast<const std::uint8_t*>(activation) + kTileRowsBytes, sums, rows, out);
}

}  // namespace
