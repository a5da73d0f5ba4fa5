// Into kernels with int4 weights: every group of 128 features of a token is quantized by itself, to signed bytes.
//
//   byte = round(x / scale),  scale = largest magnitude / 127
//
//   token    [ scales of its groups | 8 times the sum of a group's bytes | bytes, whole pairs of quads ], see
//   `Int4Token`
//
// Sums of products are integers, so they are the same in every order, and every instruction set rounds to the same
// bytes: a token has the same output alone and among others. A scale for each group keeps a few large inputs from
// taking the precision of all others.
#pragma once

#include "partial.h"
#include "tokens_s8.h"

namespace {

/// A packed token of `features`, padded.
struct Int4Token {
  const float* scales;   // of its groups
  const float* offsets;  // 8 times the sum of the bytes of each group
  const std::int8_t* bytes;

  Int4Token() = default;
  Int4Token(const std::uint8_t* at, std::int64_t features)
      : scales(reinterpret_cast<const float*>(at)),
        offsets(scales + sparsekit::groups_of(features)),
        bytes(reinterpret_cast<const std::int8_t*>(offsets + sparsekit::groups_of(features))) {}

  /// Bytes from a token to the next.
  static std::int64_t stride(std::int64_t features) {
    const std::int64_t numbers = sparsekit::groups_of(features) * 2 * static_cast<std::int64_t>(sizeof(float));
    return (numbers + features + 63) / 64 * 64;
  }
};

/// Quantizes the features of a group, `count` of them; false where one is not finite.
inline bool quantize_group(const float* x, std::int64_t count, float* scale, float* offset, std::int8_t* bytes) {
  const MinMax found = min_max_of(x, count);
  if (has_nan(found.wrong[0])) return false;
  const float most = __builtin_fmaxf(reduce_max(found.most[0]), -reduce_min(found.least[0]));
  const float inverse = 127.0F / most;
  const bool zero = !(inverse < 3.0e38F);  // or so small that every byte is 0
  std::uint8_t shifted[sparsekit::kGroup];
  quantize(x, count, Vec::broadcast(zero ? 0.0F : inverse), 128, shifted);
  std::int32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::int8_t>(shifted[i] ^ 0x80);
    sum += bytes[i];
  }
  *scale = most * (1.0F / 127.0F);
  *offset = static_cast<float>(8 * sum);
  return true;
}

/// Writes an `Int4Token`.
inline bool pack_token_s4(const float* x, std::int64_t features, std::int64_t padded_features, std::uint8_t* to) {
  const std::int64_t groups = sparsekit::groups_of(padded_features);
  auto* scales = reinterpret_cast<float*>(to);
  auto* bytes = reinterpret_cast<std::int8_t*>(scales + 2 * groups);
  bool usable = true;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * sparsekit::kGroup;
    const std::int64_t count = min(sparsekit::kGroup, features - first);
    usable = quantize_group(x + first, count, scales + g, scales + groups + g, bytes + first) && usable;
    for (std::int64_t i = count; i < min(sparsekit::kGroup, padded_features - first); ++i) bytes[first + i] = 0;
  }
  return usable;
}

}  // namespace
