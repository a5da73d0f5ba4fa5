// Layer normalization of a sum, (x - mean) / sqrt(variance + eps) * weight + bias with x = input + added, or of one
// activation, x = input; or RMSNorm of it, x / sqrt(mean of x^2 + eps) * weight + bias (Zhang and Sennrich, "Root Mean
// Square Layer Normalization").
//
//   for each four rows  input, added -> sums, written where the result goes, and their means
//                       sums         -> mean squares of what they differ from the means by
//                       sums         -> results, in place
//
// A row stays in L1 over the three passes, so memory is read twice and written once; an addition and a normalization
// apart read three times and write twice. Four rows at a time: while one waits for its mean, others are added.
// The variance is that of the differences, not mean square minus squared mean, which cancels where the mean is large.
// RMSNorm has no second pass: the first gives mean squares.
#pragma once

#include <cstddef>

#include "layer_norm_args.h"
#include "partial.h"

namespace {

/// Rows at a time, and sums in flight for each.
inline constexpr int kNormRows = 4;
inline constexpr int kNormSums = 4;

/// Floats of a cache line.
inline constexpr std::int64_t kNormLine = 16;

/// The sum over all vectors, and then over their numbers, in one order for every number of rows.
inline float reduce_add(const Vec (&sums)[kNormSums]) {
  float numbers[Vec::width];
  ((sums[0] + sums[1]) + (sums[2] + sums[3])).store(numbers);
  for (int half = Vec::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) numbers[i] += numbers[i + half];
  }
  return numbers[0];
}

/// A vector of which numbers from `count` on are 0.
inline Vec first_of(Vec v, std::int64_t count) {
  float numbers[Vec::width];
  v.store(numbers);
  return Vec::load_masked(numbers, count);
}

/// Mean of `visit(feature)`, a vector at a time, and of `rest(feature, count)` for what is less than a vector, whose
/// numbers from `count` on are 0.
template <class Visit, class Rest>
[[gnu::always_inline]] inline float mean_of(std::int64_t features, const Visit& visit, const Rest& rest) {
  Vec sums[kNormSums];
  for (Vec& sum : sums) sum = Vec::zero();
  std::int64_t f = 0;
  for (; f + kNormSums * Vec::width <= features; f += kNormSums * Vec::width) {
    for (int i = 0; i < kNormSums; ++i) sums[i] = sums[i] + visit(f + i * Vec::width);
  }
  for (; f + Vec::width <= features; f += Vec::width) sums[0] = sums[0] + visit(f);
  if (f < features) sums[1] = sums[1] + rest(f, features - f);
  return reduce_add(sums) / static_cast<float>(features);
}

/// Adds a row that starts at `at`, and returns the mean of `term` of each sum; term(0) is 0.
template <class Term>
[[gnu::always_inline]] inline float add_row(const sparsekit::LayerNormRows& rows, std::int64_t at, const Term& term) {
  const float* input = rows.input + at;
  const float* added = rows.added == nullptr ? nullptr : rows.added + at;
  float* output = rows.output + at;
  float* sums = rows.sums == nullptr ? nullptr : rows.sums + at;
  return mean_of(
      rows.features,
      [&](std::int64_t f) {
        const Vec sum = added == nullptr ? Vec::load(input + f) : Vec::load(input + f) + Vec::load(added + f);
        if (sums != nullptr) sum.store(sums + f);
        sum.store(output + f);
        return term(sum);
      },
      [&](std::int64_t f, std::int64_t count) {
        const Vec first = Vec::load_masked(input + f, count);
        const Vec sum = added == nullptr ? first : first + Vec::load_masked(added + f, count);
        if (sums != nullptr) sum.store_masked(sums + f, count);
        sum.store_masked(output + f, count);
        return term(sum);
      });
}

[[gnu::always_inline]] inline float variance_of(const float* row, Vec mean, std::int64_t features) {
  return mean_of(
      features,
      [&](std::int64_t f) {
        const Vec apart = Vec::load(row + f) - mean;
        return apart * apart;
      },
      [&](std::int64_t f, std::int64_t count) {
        const Vec apart = first_of(Vec::load_masked(row + f, count) - mean, count);
        return apart * apart;
      });
}

/// (row - mean) * scale * weight + bias for `count` rows, whose weights and biases are loaded once. Meanwhile the next
/// rows are prefetched: nothing else would be loaded.
template <int count>
[[gnu::always_inline]] inline void scale_features(const sparsekit::LayerNormRows& rows, float* output, const Vec* mean,
                                                  const Vec* scale) {
  const std::int64_t start = output - rows.output;
  const std::int64_t ahead = count * rows.features;
  const float* added = rows.added == nullptr ? rows.input : rows.added;
  const auto features = [&](std::int64_t f, std::int64_t numbers) {
    const Vec weight = rows.weight == nullptr ? Vec::broadcast(1.0F) : load_partial(rows.weight + f, numbers);
    const Vec bias = rows.bias == nullptr ? Vec::zero() : load_partial(rows.bias + f, numbers);
    for (int r = 0; r < count; ++r) {
      float* p = output + r * rows.features + f;
      if (f % kNormLine == 0) {
        __builtin_prefetch(rows.input + start + ahead + (p - output));
        __builtin_prefetch(added + start + ahead + (p - output));
        __builtin_prefetch(p + ahead, 1);
      }
      store_partial(fma((load_partial(p, numbers) - mean[r]) * scale[r], weight, bias), p, numbers);
    }
  };
  std::int64_t f = 0;
  for (; f + Vec::width <= rows.features; f += Vec::width) features(f, Vec::width);
  if (f < rows.features) features(f, rows.features - f);
}

/// Means of `count` rows from `start` on, whose sums lie in the output afterwards, and what they are scaled with.
template <int count>
[[gnu::always_inline]] inline void measure_centered(const sparsekit::LayerNormRows& rows, std::int64_t start, Vec* mean,
                                                    Vec* scale) {
  for (int r = 0; r < count; ++r) {
    mean[r] = Vec::broadcast(add_row(rows, start + r * rows.features, [](Vec sum) { return sum; }));
  }
  for (int r = 0; r < count; ++r) {
    const float variance = variance_of(rows.output + start + r * rows.features, mean[r], rows.features);
    scale[r] = Vec::broadcast(1.0F / __builtin_sqrtf(variance + rows.eps));
  }
}

/// The same without means.
template <int count>
[[gnu::always_inline]] inline void measure_squares(const sparsekit::LayerNormRows& rows, std::int64_t start, Vec* mean,
                                                   Vec* scale) {
  for (int r = 0; r < count; ++r) {
    const float square = add_row(rows, start + r * rows.features, [](Vec sum) { return sum * sum; });
    mean[r] = Vec::zero();
    scale[r] = Vec::broadcast(1.0F / __builtin_sqrtf(square + rows.eps));
  }
}

template <int count, bool centered>
inline void normalize_rows(const sparsekit::LayerNormRows& rows, std::int64_t first) {
  const std::int64_t start = first * rows.features;
  Vec mean[static_cast<std::size_t>(count)];
  Vec scale[static_cast<std::size_t>(count)];
  centered ? measure_centered<count>(rows, start, mean, scale) : measure_squares<count>(rows, start, mean, scale);
  scale_features<count>(rows, rows.output + start, mean, scale);
}

template <bool centered>
inline void normalize_all(const sparsekit::LayerNormRows& rows) {
  std::int64_t row = 0;
  for (; row + kNormRows <= rows.count; row += kNormRows) normalize_rows<kNormRows, centered>(rows, row);
  for (; row < rows.count; ++row) normalize_rows<1, centered>(rows, row);
}

inline void add_layer_norm_f32(const sparsekit::LayerNormRows& rows) {
  rows.centered ? normalize_all<true>(rows) : normalize_all<false>(rows);
}

}  // namespace
