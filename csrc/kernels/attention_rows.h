// Quantization of key-value caches: rows of keys and values in float, BFloat16, or int8 with a scale for each row.
//
// A stored row depends only on its values, and has the same bits on every instruction set, whether the token came
// alone, in a prompt or in a batch. int8 is symmetric: number = int8 * scale, scale = largest magnitude / 127.
#pragma once

#include "attention_args.h"
#include "tokens_s8.h"

namespace {

/// Whether rows have a scale each.
template <class Entry>
inline constexpr bool kScaledRows = sizeof(Entry) == 1;

template <class Entry>
inline const Entry* keys_from(const sparsekit::AttentionHead& head, std::int64_t first) {
  return static_cast<const Entry*>(head.key) + first * head.key_stride;
}

template <class Entry>
inline const Entry* values_from(const sparsekit::AttentionHead& head, std::int64_t first) {
  return static_cast<const Entry*>(head.value) + first * head.value_stride;
}

/// A number for each row from `first` on, times the scales of `count` rows where they have scales.
template <class Entry>
inline Vec times_scales(Vec numbers, const float* scales, std::int64_t first, std::int64_t count) {
  if constexpr (kScaledRows<Entry>) {
    return numbers * load_partial(scales + first, count);
  } else {
    return numbers;
  }
}

/// output[keys, features] = rows as floats, one after the other; `rows` is the first of them, `scales` those of all.
template <class Entry>
void widen_rows(const Entry* rows, std::int64_t stride, const float* scales, sparsekit::Range keys,
                std::int64_t features, float* output) {
  for (std::int64_t k = keys.first; k < keys.last; ++k, rows += stride, output += features) {
    const Vec scale = Vec::broadcast(kScaledRows<Entry> ? scales[k] : 1.0F);
    for (std::int64_t f = 0; f < features; f += Vec::width) {
      const Vec numbers = load_partial(rows + f, features - f);
      store_partial(kScaledRows<Entry> ? numbers * scale : numbers, output + f, features - f);
    }
  }
}

/// A float's first 16 bits, rounded to nearest, ties to even; infinities and NaN stay what they are.
inline sparsekit::BFloat16 rounded_bf16(float number) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return {static_cast<std::uint16_t>((is_nan ? bits | 0x400000U : bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

/// Symmetric. A row that holds what is not finite has a scale of NaN, one of zeros, or so small, a scale of 0.
inline float store_row_s8(const float* x, std::int64_t features, std::int8_t* row) {
  const MinMax found = min_max_of(x, features);
  const float low = -reduce_min(found.least[0]);
  const float high = reduce_max(found.most[0]);
  const float scale = (low < high ? high : low) * (1.0F / 127.0F);
  const float inverse = 1.0F / scale;
  const bool not_finite = has_nan(found.wrong[0]);
  if (not_finite || !(inverse < 3.0e38F)) {
    for (std::int64_t f = 0; f < features; ++f) row[f] = 0;
    return not_finite ? __builtin_nanf("") : 0.0F;
  }
  for (std::int64_t f = 0; f < features; ++f) {
    row[f] = static_cast<std::int8_t>(static_cast<std::int32_t>(__builtin_rintf(x[f] * inverse)));
  }
  return scale;
}

/// Stores a row of floats; returns its scale, 1 where it has none.
template <class Entry>
float store_row(const float* x, std::int64_t features, void* stored) {
  auto* row = static_cast<Entry*>(stored);
  if constexpr (kScaledRows<Entry>) {
    return store_row_s8(x, features, row);
  } else if constexpr (sizeof(Entry) == 2) {
    for (std::int64_t f = 0; f < features; ++f) row[f] = rounded_bf16(x[f]);
  } else {
    for (std::int64_t f = 0; f < features; ++f) row[f] = x[f];
  }
  return 1.0F;
}

}  // namespace
