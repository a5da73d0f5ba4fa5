// Into and out of kernels with int8 weights: every token is quantized by itself, to bytes that lie as its floats did.
//
//   byte = round(x / scale) + zero_point,  scale = (max - min) / 255,  min <= 0 <= max
//
//   activation   head [scale and zero point of each token], then [tile, features rounded up to whole column blocks]
//   sums         int32 [tile, rows rounded up to whole slices] of value * (byte - kByteOffset)
//   output       (sum - (zero_point - kByteOffset) * row sum) * scale of the token * scale of the row
//
// Sums are integers, so they are the same in every order; every instruction set rounds to the same bytes.
#pragma once

#include "activation.h"
#include "partial.h"
#include "table.h"

namespace {

struct TokenScale {
  float scale;
  std::int32_t zero_point;
};

/// Bytes before the quantized tokens.
constexpr std::int64_t head_bytes(std::int64_t tile) {
  return (tile * static_cast<std::int64_t>(sizeof(TokenScale)) + 63) / 64 * 64;
}

/// Vectors read together: enough independent chains to hide latency.
inline constexpr int kReadTogether = 4;

/// Running statistics for a token's scale, in `kReadTogether` vectors each.
struct MinMax {
  Vec least[kReadTogether];
  Vec most[kReadTogether];
  Vec wrong[kReadTogether];  // NaN once anything is not finite

  void add(int i, Vec v) {
    least[i] = min(least[i], v);
    most[i] = max(most[i], v);
    wrong[i] = fma(v, Vec::zero(), wrong[i]);
  }
};

inline MinMax min_max_of(const float* x, std::int64_t features) {
  MinMax range;
  for (int i = 0; i < kReadTogether; ++i) {
    range.least[i] = range.most[i] = range.wrong[i] = Vec::zero();
  }
  std::int64_t f = 0;
  for (; f + kReadTogether * Vec::width <= features; f += kReadTogether * Vec::width) {
    for (int i = 0; i < kReadTogether; ++i) range.add(i, Vec::load(x + f + i * Vec::width));
  }
  for (; f < features; f += Vec::width) range.add(0, load_partial(x + f, features - f));
  for (int i = 1; i < kReadTogether; ++i) {
    range.least[0] = min(range.least[0], range.least[i]);
    range.most[0] = max(range.most[0], range.most[i]);
    range.wrong[0] = range.wrong[0] + range.wrong[i];
  }
  return range;
}

/// Scale and zero point of one token; a scale of 0 where it holds something that is not finite, or too large.
inline TokenScale scale_of(const float* x, std::int64_t features) {
  const MinMax found = min_max_of(x, features);
  if (has_nan(found.wrong[0])) return {0.0F, 0};
  const float low = reduce_min(found.least[0]);
  const float range = reduce_max(found.most[0]) - low;
  if (range == 0.0F) return {1.0F, 0};
  const float scale = range * (1.0F / 255.0F);
  const float inverse = 1.0F / scale;
  if (!(range < 3.0e38F)) return {0.0F, 0};
  if (!(inverse < 3.0e38F)) return {1.0F, 0};  // so small that every byte is 0
  return {scale, static_cast<std::int32_t>(__builtin_rintf(-low * inverse))};
}

/// The bytes of one token.
inline void quantize(const float* x, std::int64_t features, Vec inverse, std::int32_t zero_point, std::uint8_t* bytes) {
  std::int64_t f = 0;
  for (; f + 4 * Vec::width <= features; f += 4 * Vec::width) {
    Vec four[4];
    for (int i = 0; i < 4; ++i) four[i] = Vec::load(x + f + i * Vec::width) * inverse;
    store_bytes_of_four(four, zero_point, bytes + f);
  }
  for (; f < features; f += Vec::width) {
    store_bytes(load_partial(x + f, features - f) * inverse, zero_point, bytes + f);
  }
}

/// Tokens whose scales are computed before they are quantized: a scale ends in a long chain of operations.
inline constexpr int kScaledTogether = 2;

/// Quantizes whole tokens; tokens beyond the valid ones are zero.
template <int tile>
bool pack_bytes_s8(const sparsekit::Input& input, sparsekit::Range features, std::int64_t padded_features,
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
        quantize(input.data + t * input.stride, features.last, Vec::broadcast(1.0F / scales[t].scale),
                 scales[t].zero_point, to);
      }
    }
  }
  return usable;
}

/// What is common to the sums of one vector of rows.
struct RowScales {
  VecI32 row_sums;
  Vec scales;
  Vec biases;
  std::int64_t count;

  static RowScales of(const sparsekit::PackedWeight& weight, const sparsekit::Output& out, std::int64_t row,
                      std::int64_t last) {
    const std::int64_t count = min(Vec::width, last - row);
    return {VecI32::load_masked(weight.row_sums + row, count), load_partial(weight.scales + row, count),
            out.bias == nullptr ? Vec::zero() : load_partial(out.bias + row, count), count};
  }

  /// The output without its activation function.
  Vec output(VecI32 sums, TokenScale token) const {
    return fma(without_zero_point(sums, row_sums, token.zero_point - kByteOffset), Vec::broadcast(token.scale) * scales,
               biases);
  }
};

/// Vectors of rows that are stored together: what is common to them stays in registers, and whole lines are written.
inline constexpr int kRowsTogether = 4;

/// For sums in the order of rows.
inline void store_sums_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                          sparsekit::Range rows, const sparsekit::Output& out) {
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  const std::int64_t stride = sparsekit::padded_row_groups(rows.last - rows.first, weight.height) * weight.height;
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = rows.first; first < rows.last; first += kRowsTogether * Vec::width) {
      RowScales scales[kRowsTogether];
      for (int i = 0; i < kRowsTogether; ++i) {
        scales[i] = RowScales::of(weight, out, min(first + i * Vec::width, rows.last), rows.last);
      }
      for (std::int64_t t = 0; t < out.tokens; ++t) {
        for (int i = 0; i < kRowsTogether && scales[i].count > 0; ++i) {
          const std::int64_t r = first + i * Vec::width;
          const VecI32 found = VecI32::load(sums + t * stride + (r - rows.first));
          float* y = out.data + t * out.stride + r;
          __builtin_prefetch(y + kRowsTogether * Vec::width, 1);
          store_partial(activate(scales[i].output(found, tokens[t])), y, scales[i].count);
        }
      }
    }
  });
}

}  // namespace
