// Into and out of kernels with int8 weights: every token is quantised by itself, to bytes that lie as its floats did.
//
//   byte = round(x / scale) + zero_point,  scale = (most - least) / 255,  least <= 0 <= most
//
//   activation   head [scale and zero point of each token], then [tile, features rounded up to whole blocks]
//   sums         int32 [tile, rows rounded up to whole tiles] of code * (byte - kByteOffset)
//   output       (sum - (zero_point - kByteOffset) * total of the row) * scale of the token * scale of the row
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

/// Vectors that are read together: as many chains of operations as their latency asks for.
inline constexpr int kReadTogether = 4;

/// What one token's scale depends on, in `kReadTogether` vectors each.
struct Range {
  Vector least[kReadTogether];
  Vector most[kReadTogether];
  Vector wrong[kReadTogether];  // NaN once anything is not finite

  void add(int i, Vector v) {
    least[i] = smaller_of(least[i], v);
    most[i] = larger_of(most[i], v);
    wrong[i] = fma(v, Vector::zero(), wrong[i]);
  }
};

inline Range range_of(const float* x, std::int64_t features) {
  Range range;
  for (int i = 0; i < kReadTogether; ++i) {
    range.least[i] = range.most[i] = range.wrong[i] = Vector::zero();
  }
  std::int64_t f = 0;
  for (; f + kReadTogether * Vector::width <= features; f += kReadTogether * Vector::width) {
    for (int i = 0; i < kReadTogether; ++i) range.add(i, Vector::load(x + f + i * Vector::width));
  }
  for (; f < features; f += Vector::width) range.add(0, load_up_to(x + f, features - f));
  for (int i = 1; i < kReadTogether; ++i) {
    range.least[0] = smaller_of(range.least[0], range.least[i]);
    range.most[0] = larger_of(range.most[0], range.most[i]);
    range.wrong[0] = range.wrong[0] + range.wrong[i];
  }
  return range;
}

/// Scale and zero point of one token; a scale of 0 where it holds something that is not finite, or too large.
inline TokenScale scale_of(const float* x, std::int64_t features) {
  const Range found = range_of(x, features);
  if (has_nan(found.wrong[0])) return {0.0F, 0};
  const float low = least_of(found.least[0]);
  const float range = most_of(found.most[0]) - low;
  if (range == 0.0F) return {1.0F, 0};
  const float scale = range * (1.0F / 255.0F);
  const float inverse = 1.0F / scale;
  if (!(range < 3.0e38F)) return {0.0F, 0};
  if (!(inverse < 3.0e38F)) return {1.0F, 0};  // so small that every byte is 0
  return {scale, static_cast<std::int32_t>(__builtin_rintf(-low * inverse))};
}

/// The bytes of one token.
inline void quantise(const float* x, std::int64_t features, Vector inverse, std::int32_t zero_point,
                     std::uint8_t* bytes) {
  std::int64_t f = 0;
  for (; f + 4 * Vector::width <= features; f += 4 * Vector::width) {
    Vector four[4];
    for (int i = 0; i < 4; ++i) four[i] = Vector::load(x + f + i * Vector::width) * inverse;
    store_bytes_of_four(four, zero_point, bytes + f);
  }
  for (; f < features; f += Vector::width) {
    store_bytes(load_up_to(x + f, features - f) * inverse, zero_point, bytes + f);
  }
}

/// Tokens whose scales are worked out before they are quantised: a scale ends in a long chain of operations.
inline constexpr int kScaledTogether = 2;

/// Quantises whole tokens; tokens beyond the valid ones are zero.
template <int tile>
bool pack_bytes_s8(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                   void* packed) {
  constexpr int together = tile < kScaledTogether ? tile : kScaledTogether;
  auto* scales = static_cast<TokenScale*>(packed);
  auto* bytes = static_cast<std::uint8_t*>(packed) + head_bytes(tile);
  bool usable = true;
  for (int first = 0; first < tile; first += together) {
    for (int t = first; t < first + together && t < input.tokens; ++t) {
      scales[t] = scale_of(input.data + t * input.stride, features.last);
      usable = usable && scales[t].scale != 0.0F;
    }
    for (int t = first; t < first + together; ++t) {
      std::uint8_t* to = bytes + t * padded_features;
      if (t >= input.tokens) {
        for (std::int64_t f = 0; f < padded_features; ++f) to[f] = 0;
      } else if (scales[t].scale != 0.0F) {
        quantise(input.data + t * input.stride, features.last, Vector::broadcast(1.0F / scales[t].scale),
                 scales[t].zero_point, to);
      }
    }
  }
  return usable;
}

/// What is common to the sums of one vector of rows.
struct RowScales {
  Sums totals;
  Vector scales;
  Vector biases;
  std::int64_t count;

  static RowScales of(const sparsekit::PackedWeight& weight, const sparsekit::Output& out, std::int64_t row,
                      std::int64_t last) {
    const std::int64_t count = smaller(Vector::width, last - row);
    return {Sums::load_first(weight.totals + row, count), load_up_to(weight.scales + row, count),
            out.bias == nullptr ? Vector::zero() : load_up_to(out.bias + row, count), count};
  }

  /// The output without its activation function.
  Vector output(Sums sums, TokenScale token) const {
    return fma(shifted(sums, totals, token.zero_point - kByteOffset), Vector::broadcast(token.scale) * scales, biases);
  }
};

/// Vectors of rows that are stored together: what is common to them stays in registers, and whole lines are written.
inline constexpr int kRowsTogether = 4;

/// For sums in the order of rows.
inline void store_sums_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                          sparsekit::RowRange rows, const sparsekit::Output& out) {
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  const std::int64_t stride = sparsekit::lanes_for(rows.last - rows.first, weight.height) * weight.height;
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = rows.first; first < rows.last; first += kRowsTogether * Vector::width) {
      RowScales scales[kRowsTogether];
      for (int i = 0; i < kRowsTogether; ++i) {
        scales[i] = RowScales::of(weight, out, smaller(first + i * Vector::width, rows.last), rows.last);
      }
      for (std::int64_t t = 0; t < out.tokens; ++t) {
        for (int i = 0; i < kRowsTogether && scales[i].count > 0; ++i) {
          const std::int64_t r = first + i * Vector::width;
          const Sums found = Sums::load(sums + t * stride + (r - rows.first));
          float* y = out.data + t * out.stride + r;
          __builtin_prefetch(y + kRowsTogether * Vector::width, 1);
          store_up_to(activate(scales[i].output(found, tokens[t])), y, scales[i].count);
        }
      }
    }
  });
}

}  // namespace
