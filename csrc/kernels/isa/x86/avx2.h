// Eight floats a vector, for the instruction sets with AVX2 (FMA, F16C).
#pragma once

#include "halves.h"

namespace {

inline constexpr int kRegisters = 16;

struct Vector {
  static constexpr int width = 8;
  __m256 v;

  static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vector load_first(const float* p, std::int64_t count) { return {_mm256_maskload_ps(p, first(count))}; }
  static Vector broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vector broadcast(const float* p) { return {_mm256_broadcast_ss(p)}; }
  static Vector broadcast(const sparsekit::BFloat16* p) {
    return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_set1_epi32(upper_at(p)), _mm256_set1_epi32(kUpperHalf)))};
  }
  static Vector broadcast(const sparsekit::Float16* p) { return broadcast(widen(*p)); }
  template <class Value>
  static void broadcast_four(const Value* p, Vector (&each)[4]) {
    const __m128 values = four_values(p);
    const __m256 four = _mm256_set_m128(values, values);
    each[0].v = _mm256_permute_ps(four, 0x00);
    each[1].v = _mm256_permute_ps(four, 0x55);
    each[2].v = _mm256_permute_ps(four, 0xAA);
    each[3].v = _mm256_permute_ps(four, 0xFF);
  }
  static Vector zero() { return {_mm256_setzero_ps()}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store_first(float* p, std::int64_t count) const { _mm256_maskstore_ps(p, first(count), v); }

  static __m256i first(std::int64_t count) {
    const int limit = count < width ? static_cast<int>(count) : width;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(limit), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

inline Vector operator+(Vector a, Vector b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

// min and max return their second operand when one is NaN: a NaN in `x` comes through.
inline Vector at_most(Vector x, float limit) { return {_mm256_min_ps(_mm256_set1_ps(limit), x.v)}; }
inline Vector at_least(Vector x, float limit) { return {_mm256_max_ps(_mm256_set1_ps(limit), x.v)}; }
inline Vector absolute(Vector x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0F), x.v)}; }
inline Vector with_sign_of(Vector magnitude, Vector sign) {
  return {_mm256_or_ps(magnitude.v, _mm256_and_ps(_mm256_set1_ps(-0.0F), sign.v))};
}
inline Vector round_nearest(Vector x) { return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

/// x * 2^n for whole n in [-252, 254]: two factors, so that neither overflows nor vanishes early.
inline Vector times_power_of_two(Vector x, Vector n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return {_mm256_mul_ps(_mm256_mul_ps(x.v, power(half)), power(_mm256_sub_epi32(whole, half)))};
}

inline Vector smaller_of(Vector a, Vector b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vector larger_of(Vector a, Vector b) { return {_mm256_max_ps(a.v, b.v)}; }

inline float least_of(Vector v) {
  __m128 m = _mm_min_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
  m = _mm_min_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}
inline float most_of(Vector v) { return -least_of({_mm256_xor_ps(v.v, _mm256_set1_ps(-0.0F))}); }
inline bool has_nan(Vector v) { return _mm256_movemask_ps(_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q)) != 0; }

/// The nearest whole number of every float, ties to even, and `added`, as bytes from 0 to 255.
inline void store_bytes(Vector v, std::int32_t added, std::uint8_t* p) {
  const __m256i whole = _mm256_add_epi32(_mm256_cvtps_epi32(v.v), _mm256_set1_epi32(added));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vector (&v)[4], std::int32_t added, std::uint8_t* p) {
  const __m256i more = _mm256_set1_epi16(static_cast<short>(added));
  const auto words = [&](int i) {
    const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(v[i].v), _mm256_cvtps_epi32(v[i + 1].v));
    return _mm256_add_epi16(both, more);
  };
  // Both 128 bits hold four bytes of each vector.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words(0), words(2)), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bytes);
}

/// Eight whole numbers.
struct Sums {
  __m256i v;

  static Sums zero() { return {_mm256_setzero_si256()}; }
  static Sums load(const std::int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  void store(std::int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Sums load_first(const std::int32_t* p, std::int64_t count) {
    return {_mm256_maskload_epi32(p, Vector::first(count))};
  }
};

/// sums - factor * totals, as floats.
inline Vector shifted(Sums sums, Sums totals, std::int32_t factor) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(sums.v, _mm256_mullo_epi32(totals.v, _mm256_set1_epi32(factor))))};
}

inline void transpose(Vector (&r)[8]) {
  __m256 a[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    a[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m256 b[8];
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    r[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    r[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

inline void transpose(Sums (&r)[8]) {
  Vector v[8];
  for (int i = 0; i < 8; ++i) v[i].v = _mm256_castsi256_ps(r[i].v);
  transpose(v);
  for (int i = 0; i < 8; ++i) r[i].v = _mm256_castps_si256(v[i].v);
}

/// Eight tokens' worth of a vector.
using Eight = Vector;

}  // namespace
