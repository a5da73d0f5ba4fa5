// Eight floats a vector, for the instruction sets with AVX2 (FMA, F16C).
#pragma once

#include "float16.h"

namespace {

inline constexpr int kRegisters = 16;

struct Vec {
  static constexpr int width = 8;
  __m256 v;

  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const sparsekit::BFloat16* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_words(p)), 16))};
  }
  static Vec load(const sparsekit::Float16* p) { return {_mm256_cvtph_ps(load_words(p))}; }
  static Vec load(const std::int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
  }
  static Vec load_masked(const float* p, std::int64_t count) {
    if (count == width / 2) return {_mm256_zextps128_ps256(_mm_loadu_ps(p))};
    return {_mm256_maskload_ps(p, mask(count))};
  }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec broadcast(const float* p) { return {_mm256_broadcast_ss(p)}; }
  static Vec broadcast(const sparsekit::BFloat16* p) {
    return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_set1_epi32(upper_at(p)), _mm256_set1_epi32(kUpperHalf)))};
  }
  static Vec broadcast(const sparsekit::Float16* p) { return broadcast(widen(*p)); }
  static Vec broadcast(const std::int8_t* p) { return broadcast(widen(*p)); }
  template <class Value>
  static void broadcast_four(const Value* p, Vec (&each)[4]) {
    broadcast_each(four_values(p), each);
  }
  template <class Value>
  static void broadcast_adjacent(const Value* p, Vec (&each)[4]) {
    broadcast_each(adjacent_four(p), each);
  }
  static void broadcast_each(__m128 values, Vec (&each)[4]) {
    const __m256 four = _mm256_set_m128(values, values);
    each[0].v = _mm256_permute_ps(four, 0x00);
    each[1].v = _mm256_permute_ps(four, 0x55);
    each[2].v = _mm256_permute_ps(four, 0xAA);
    each[3].v = _mm256_permute_ps(four, 0xFF);
  }
  static Vec zero() { return {_mm256_setzero_ps()}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  /// Half a vector, which tiles of four tokens store, without the mask: AMD's processors are slow to store by one.
  void store_masked(float* p, std::int64_t count) const {
    if (count == width / 2) return _mm_storeu_ps(p, _mm256_castps256_ps128(v));
    _mm256_maskstore_ps(p, mask(count), v);
  }

  static __m128i load_words(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

  static __m256i mask(std::int64_t count) {
    const int limit = count < width ? static_cast<int>(count) : width;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(limit), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

// min and max return their second operand when one is NaN: a NaN in `x` comes through.
inline Vec min(Vec x, float limit) { return {_mm256_min_ps(_mm256_set1_ps(limit), x.v)}; }
inline Vec max(Vec x, float limit) { return {_mm256_max_ps(_mm256_set1_ps(limit), x.v)}; }
/// The float whose sign and exponent are the last nine bits of another.
inline Vec low_bits_to_exponent(Vec x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x.v), 23))};
}

inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }

inline float reduce_min(Vec v) {
  __m128 m = _mm_min_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
  m = _mm_min_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}
inline float reduce_max(Vec v) { return -reduce_min({_mm256_xor_ps(v.v, _mm256_set1_ps(-0.0F))}); }
inline bool has_nan(Vec v) { return _mm256_movemask_ps(_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q)) != 0; }

/// The nearest integer of every float, ties to even, and `added`, as bytes from 0 to 255.
inline void store_bytes(Vec v, std::int32_t added, std::uint8_t* p) {
  const __m256i whole = _mm256_add_epi32(_mm256_cvtps_epi32(v.v), _mm256_set1_epi32(added));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vec (&v)[4], std::int32_t added, std::uint8_t* p) {
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

/// Eight integers.
struct VecI32 {
  __m256i v;

  static VecI32 zero() { return {_mm256_setzero_si256()}; }
  static VecI32 load(const std::int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  void store(std::int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static VecI32 load_masked(const std::int32_t* p, std::int64_t count) {
    return {_mm256_maskload_epi32(p, Vec::mask(count))};
  }
};

inline VecI32 operator+(VecI32 a, VecI32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Vec to_floats(VecI32 v) { return {_mm256_cvtepi32_ps(v.v)}; }

/// sums - zero_point * row_sums, as floats.
inline Vec without_zero_point(VecI32 sums, VecI32 row_sums, std::int32_t zero_point) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(sums.v, _mm256_mullo_epi32(row_sums.v, _mm256_set1_epi32(zero_point))))};
}

inline void transpose(Vec (&r)[8]) {
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

inline void transpose(VecI32 (&r)[8]) {
  Vec v[8];
  for (int i = 0; i < 8; ++i) v[i].v = _mm256_castsi256_ps(r[i].v);
  transpose(v);
  for (int i = 0; i < 8; ++i) r[i].v = _mm256_castps_si256(v[i].v);
}

/// Eight tokens' worth of a vector.
using Vec8 = Vec;

}  // namespace

#include "few_tokens.h"
