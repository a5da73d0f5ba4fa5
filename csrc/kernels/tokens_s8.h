// Into and out of kernels with int8 weights: every token is quantised by itself, to bytes that lie as its floats did.
//
//   byte = round(x / scale) + zero_point,  scale = (most - least) / 255,  least <= 0 <= most
//
//   activation   head [scale and zero point of each token], then [tile, features rounded up to 128]
//   sums         int32 [tile, rows rounded up to 16] of code * byte
//   output       (sum - zero_point * total of the row) * scale of the token * scale of the row
//
// Sums are whole numbers, so they are the same in every order; every instruction set rounds to the same bytes.
#pragma once

#include "activation.h"
#include "partial.h"
#include "table.h"

namespace {

struct TokenScale {
  float scale;
  std::int32_t zero_point;
};

/// Bytes before the quantised tokens.
constexpr std::int64_t head_bytes(std::int64_t tile) {
  return (tile * static_cast<std::int64_t>(sizeof(TokenScale)) + 63) / 64 * 64;
}

inline float least_of(const Vector& v) {
  float each[Vector::width];
  v.store(each);
  float least = each[0];
  for (int i = 1; i < Vector::width; ++i) least = each[i] < least ? each[i] : least;
  return least;
}

/// Scale and zero point of one token; a scale of 0 where it holds something that is not finite, or too large.
inline TokenScale scale_of(const float* x, std::int64_t features) {
  Vector least = Vector::zero();
  Vector minus_most = Vector::zero();
  Vector bad = Vector::zero();
  for (std::int64_t f = 0; f < features; f += Vector::width) {
    const Vector v = load_up_to(x + f, features - f);
    least = smaller_of(least, v);
    minus_most = smaller_of(minus_most, Vector::zero() - v);
    bad = fma(v, Vector::zero(), bad);  // NaN once anything is not finite
  }
  const float low = least_of(least);
  const float range = -least_of(minus_most) - low;
  float wrong[Vector::width];
  bad.store(wrong);
  for (int i = 0; i < Vector::width; ++i) {
    if (wrong[i] != 0.0F) return {0.0F, 0};
  }
  if (range == 0.0F) return {1.0F, 0};
  const float scale = range * (1.0F / 255.0F);
  const float inverse = 1.0F / scale;
  if (!(range < 3.0e38F) || !(inverse < 3.0e38F)) return {0.0F, 0};
  return {scale, static_cast<std::int32_t>(__builtin_rintf(-low * inverse))};
}

/// Quantises whole tokens; tokens beyond the valid ones are zero.
template <int tile>
bool pack_bytes_s8(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                   void* packed) {
  auto* scales = static_cast<TokenScale*>(packed);
  auto* bytes = static_cast<std::uint8_t*>(packed) + head_bytes(tile);
  bool usable = true;
  for (int t = 0; t < tile; ++t) {
    if (t >= input.tokens) {
      for (std::int64_t f = 0; f < padded_features; ++f) bytes[t * padded_features + f] = 0;
      continue;
    }
    const float* x = input.data + t * input.stride;
    const TokenScale found = scale_of(x, features.last);
    usable = usable && found.scale != 0.0F;
    const Vector inverse = Vector::broadcast(found.scale != 0.0F ? 1.0F / found.scale : 0.0F);
    for (std::int64_t f = 0; f < features.last; f += Vector::width) {
      store_bytes(load_up_to(x + f, features.last - f) * inverse, found.zero_point, bytes + t * padded_features + f);
    }
    scales[t] = found;
  }
  return usable;
}

template <class Activate>
inline void store_sums_with(const sparsekit::PackedWeight& weight, const TokenScale* scales, const std::int32_t* sums,
                            sparsekit::RowRange rows, const sparsekit::Output& out, const Activate& activate) {
  const std::int64_t stride = sparsekit::padded_lanes(rows.last - rows.first);
  for (std::int64_t t = 0; t < out.tokens; ++t) {
    const Vector scale = Vector::broadcast(scales[t].scale);
    const std::int32_t* sum = sums + t * stride;
    float* y = out.data + t * out.stride;
    for (std::int64_t r = rows.first; r < rows.last; r += Vector::width) {
      const std::int64_t count = smaller(Vector::width, rows.last - r);
      const Vector bias = out.bias == nullptr ? Vector::zero() : load_up_to(out.bias + r, count);
      const Vector whole = shifted_sums(sum + (r - rows.first), weight.totals + r, scales[t].zero_point, count);
      store_up_to(activate(fma(whole, scale * load_up_to(weight.scales + r, count), bias)), y + r, count);
    }
  }
}

inline void store_sums_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* sums,
                          sparsekit::RowRange rows, const sparsekit::Output& out) {
  with_activation(out.activation, [&](const auto& activate) {
    store_sums_with(weight, static_cast<const TokenScale*>(activation), static_cast<const std::int32_t*>(sums), rows,
                    out, activate);
  });
}

}  // namespace
