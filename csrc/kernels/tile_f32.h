// Into and out of a tile: row-major activations <-> `[features, tile]`, transposed in registers.
//
//   input   token 0: x00 x01 x02 ..        tile   feature 0: x00 x10 x20 ..
//           token 1: x10 x11 x12 ..  ->           feature 1: x01 x11 x21 ..
//
// One load and one store a value, width x width at a time, so that the multiply loops only read whole vectors.
// Storing adds the bias and applies the activation function while the tile is in cache. A vector of tokens goes through
// all features before the next: rows of outputs whose length is a multiple of 4 KB, as those of MLPs often are, begin
// in the same set of L1, which holds no more than a dozen lines of them.
#pragma once

#include "activation.h"
#include "linear_args.h"
#include "packed_weight.h"
#include "partial.h"

namespace {

/// Tokens of a tile that one vector holds.
template <int tile>
inline constexpr std::int64_t kTogether = tile < Vec::width ? tile : Vec::width;

/// Prefetch distance in floats: tokens are a row apart, and a tile has too many rows for the hardware prefetcher.
inline constexpr std::int64_t kLoadAhead = 64;
inline constexpr std::int64_t kStoreAhead = 32;

/// Transposes the features of one vector of tokens, `Vec::width` or fewer, into `out`; the rest of the tokens is
/// zero.
template <int tile>
inline void pack_features(const float* x, std::int64_t stride, std::int64_t tokens, std::int64_t features, float* out) {
  Vec square[Vec::width];
  for (int t = 0; t < Vec::width; ++t) {
    if (t < tokens) __builtin_prefetch(x + t * stride + kLoadAhead);
    square[t] = t < tokens ? load_partial(x + t * stride, features) : Vec::zero();
  }
  transpose(square);
  for (std::int64_t i = 0; i < features; ++i) store_partial(square[i], out + i * tile, kTogether<tile>);
}

/// `[features, tile]`
template <int tile>
bool pack_tile_f32(const sparsekit::Input& input, sparsekit::Range features, std::int64_t, void* packed) {
  auto* activation = static_cast<float*>(packed);
  for (std::int64_t first = 0; first < tile; first += Vec::width) {
    const float* x = input.data + first * input.stride;
    for (std::int64_t f = features.first; f < features.last; f += Vec::width) {
      pack_features<tile>(x + f, input.stride, input.tokens - first, min(Vec::width, features.last - f),
                          activation + f * tile + first);
    }
  }
  return true;
}

/// `scales`: of the rows, [out_features], or null.
template <int tile, class Activate>
inline void store_tile_with(const float* sums, const float* scales, sparsekit::Range rows, const sparsekit::Output& out,
                            const Activate& activate) {
  for (std::int64_t first = 0; first < out.tokens; first += Vec::width) {
    const std::int64_t tokens = min(Vec::width, out.tokens - first);
    for (std::int64_t r = rows.first; r < rows.last; r += Vec::width) {
      const std::int64_t count = min(Vec::width, rows.last - r);
      const Vec bias = out.bias == nullptr ? Vec::zero() : load_partial(out.bias + r, count);
      const Vec scale = scales == nullptr ? Vec::broadcast(1.0F) : load_partial(scales + r, count);
      Vec square[Vec::width];
      for (int i = 0; i < Vec::width; ++i) {
        const float* row = sums + (r - rows.first + i) * tile + first;
        square[i] = i < count ? load_partial(row, kTogether<tile>) : Vec::zero();
      }
      transpose(square);
      for (std::int64_t t = 0; t < tokens; ++t) {
        float* y = out.data + (first + t) * out.stride + r;
        __builtin_prefetch(y + kStoreAhead, 1);
        store_partial(activate(fma(square[t], scale, bias)), y, count);
      }
    }
  }
}

template <int tile, bool scaled = false>
void store_tile_f32(const sparsekit::PackedWeight& weight, const void*, const void* sums, sparsekit::Range rows,
                    const sparsekit::Output& out) {
  with_activation(out.activation, [&](const auto& activate) {
    store_tile_with<tile>(static_cast<const float*>(sums), scaled ? weight.scales : nullptr, rows, out, activate);
  });
}

}  // namespace
