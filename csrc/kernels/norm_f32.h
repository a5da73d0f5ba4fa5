// Layer normalisation of a sum, (x - mean) / sqrt(variance + eps) * weight + bias with x = input + added.
//
//   for each four rows  input, added -> sums, written where the result goes, and their means
//                       sums         -> mean squares of what they differ from the means by
//                       sums         -> results, in place
//
// A row stays in L1 over the three passes, so memory is read twice and written once; an addition and a normalisation
// apart read three times and write twice. Four rows at a time: while one waits for its mean, others are added.
// The variance is that of the differences, not mean square minus squared mean, which cancels where the mean is large.
#pragma once

#include <cstddef>

#include "partial.h"

namespace {

/// Rows at a time, and sums in flight for each.
inline constexpr int kNormRows = 4;
inline constexpr int kNormSums = 4;

/// Floats of a cache line.
inline constexpr std::int64_t kNormLine = 16;

/// The sum over all vectors, and then over their numbers, in one order for every number of rows.
inline float total_of(const Vector (&sums)[kNormSums]) {
  float numbers[Vector::width];
  ((sums[0] + sums[1]) + (sums[2] + sums[3])).store(numbers);
  for (int half = Vector::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) numbers[i] += numbers[i + half];
  }
  return numbers[0];
}

/// A vector of which numbers from `count` on are 0.
inline Vector first_of(Vector v, std::int64_t count) {
  float numbers[Vector::width];
  v.store(numbers);
  return Vector::load_first(numbers, count);
}

/// Mean of `visit(feature)`, a vector at a time, and of `rest(feature, count)` for what is less than a vector, whose
/// numbers from `count` on are 0.
template <class Visit, class Rest>
[[gnu::always_inline]] inline float mean_of(std::int64_t features, const Visit& visit, const Rest& rest) {
  Vector sums[kNormSums];
  for (Vector& sum : sums) sum = Vector::zero();
  std::int64_t f = 0;
  for (; f + kNormSums * Vector::width <= features; f += kNormSums * Vector::width) {
    for (int i = 0; i < kNormSums; ++i) sums[i] = sums[i] + visit(f + i * Vector::width);
  }
  for (; f + Vector::width <= features; f += Vector::width) sums[0] = sums[0] + visit(f);
  if (f < features) sums[1] = sums[1] + rest(f, features - f);
  return total_of(sums) / static_cast<float>(features);
}

[[gnu::always_inline]] inline float add_row(const float* input, const float* added, float* output,
                                            std::int64_t features) {
  return mean_of(
      features,
      [&](std::int64_t f) {
        const Vector sum = Vector::load(input + f) + Vector::load(added + f);
        sum.store(output + f);
        return sum;
      },
      [&](std::int64_t f, std::int64_t count) {
        const Vector sum = Vector::load_first(input + f, count) + Vector::load_first(added + f, count);
        sum.store_first(output + f, count);
        return sum;
      });
}

[[gnu::always_inline]] inline float variance_of(const float* row, Vector mean, std::int64_t features) {
  return mean_of(
      features,
      [&](std::int64_t f) {
        const Vector apart = Vector::load(row + f) - mean;
        return apart * apart;
      },
      [&](std::int64_t f, std::int64_t count) {
        const Vector apart = first_of(Vector::load_first(row + f, count) - mean, count);
        return apart * apart;
      });
}

/// (row - mean) * scale * weight + bias for `count` rows, whose weights and biases are loaded once. Meanwhile the next
/// rows are requested: nothing else would be loaded.
template <int count>
[[gnu::always_inline]] inline void scale_features(const sparsekit::NormRows& rows, float* output, const Vector* mean,
                                                  const Vector* scale) {
  const std::int64_t start = output - rows.output;
  const std::int64_t ahead = count * rows.features;
  const auto features = [&](std::int64_t f, std::int64_t numbers) {
    const Vector weight = rows.weight == nullptr ? Vector::broadcast(1.0F) : load_up_to(rows.weight + f, numbers);
    const Vector bias = rows.bias == nullptr ? Vector::zero() : load_up_to(rows.bias + f, numbers);
    for (int r = 0; r < count; ++r) {
      float* p = output + r * rows.features + f;
      if (f % kNormLine == 0) {
        __builtin_prefetch(rows.input + start + ahead + (p - output));
        __builtin_prefetch(rows.added + start + ahead + (p - output));
        __builtin_prefetch(p + ahead, 1);
      }
      store_up_to(fma((load_up_to(p, numbers) - mean[r]) * scale[r], weight, bias), p, numbers);
    }
  };
  std::int64_t f = 0;
  for (; f + Vector::width <= rows.features; f += Vector::width) features(f, Vector::width);
  if (f < rows.features) features(f, rows.features - f);
}

template <int count>
inline void normalise_rows(const sparsekit::NormRows& rows, std::int64_t first) {
  const std::int64_t start = first * rows.features;
  Vector mean[static_cast<std::size_t>(count)];
  Vector scale[static_cast<std::size_t>(count)];
  for (int r = 0; r < count; ++r) {
    const std::int64_t at = start + r * rows.features;
    mean[r] = Vector::broadcast(add_row(rows.input + at, rows.added + at, rows.output + at, rows.features));
  }
  for (int r = 0; r < count; ++r) {
    const float variance = variance_of(rows.output + start + r * rows.features, mean[r], rows.features);
    scale[r] = Vector::broadcast(1.0F / __builtin_sqrtf(variance + rows.eps));
  }
  scale_features<count>(rows, rows.output + start, mean, scale);
}

inline void add_layer_norm_f32(const sparsekit::NormRows& rows) {
  std::int64_t row = 0;
  for (; row + kNormRows <= rows.count; row += kNormRows) normalise_rows<kNormRows>(rows, row);
  for (; row < rows.count; ++row) normalise_rows<1>(rows, row);
}

}  // namespace
