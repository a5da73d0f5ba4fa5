// Inputs of one and of four tokens for eight products at a time, for the instruction sets of x86.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

inline constexpr bool kGathersInputs = true;

/// Four floats: the inputs of four tokens, or the sums of four rows.
struct Vec4 {
  __m128 v;

  static Vec4 load(const float* p) { return {_mm_loadu_ps(p)}; }
  static Vec4 broadcast(float x) { return {_mm_set1_ps(x)}; }
  static Vec4 zero() { return {_mm_setzero_ps()}; }
  template <class Value>
  static Vec4 adjacent(const Value* p) {
    return {adjacent_four(p)};
  }
  void store(float* p) const { _mm_storeu_ps(p, v); }
};

inline Vec4 operator+(Vec4 a, Vec4 b) { return {_mm_add_ps(a.v, b.v)}; }
inline Vec4 fma(Vec4 a, Vec4 b, Vec4 c) { return {_mm_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec4 add_halves(Vec8 v) { return {_mm_add_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1))}; }
inline float reduce_add(Vec4 v) {
  const __m128 two = _mm_add_ps(v.v, _mm_movehl_ps(v.v, v.v));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// Eight values next to each other.
inline Vec8 adjacent_eight(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec8 adjacent_eight(const sparsekit::BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
inline Vec8 adjacent_eight(const sparsekit::Float16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

inline Vec8 adjacent_eight(const std::int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}

/// The inputs of eight columns. Eight loads and inserts are faster than a gather instruction.
inline Vec8 gather_eight(const float* inputs, const std::uint8_t* columns) {
  const auto four = [&](const std::uint8_t* c) {
    __m128 x = _mm_load_ss(inputs + c[0]);
    x = _mm_insert_ps(x, _mm_load_ss(inputs + c[1]), 0x10);
    x = _mm_insert_ps(x, _mm_load_ss(inputs + c[2]), 0x20);
    return _mm_insert_ps(x, _mm_load_ss(inputs + c[3]), 0x30);
  };
  return {_mm256_set_m128(four(columns + 4), four(columns))};
}

/// Eight lanes, each with the value whose place among those at `p` a byte of `places` says, or 0 where it says 0x80.
/// Reads eight values.
template <class Value>
inline Vec8 expand_eight(const Value* p, const std::uint64_t* places) {
  const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(places)));
  const __m256 values = _mm256_permutevar8x32_ps(adjacent_eight(p).v, wide);
  return {_mm256_blendv_ps(values, _mm256_setzero_ps(), _mm256_castsi256_ps(wide))};
}
inline Vec8 expand_eight(const std::int8_t* p, const std::uint64_t* places) {
  const __m128i values = _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                                          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(places)));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(values))};
}

/// Two inputs, each four times.
inline Vec8 spread_two(const float* first, const float* second) {
  return {_mm256_set_m128(_mm_broadcast_ss(second), _mm_broadcast_ss(first))};
}

/// The inputs of two columns, four tokens each; those of one, twice.
inline Vec8 load_two(const float* first, const float* second) {
  return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(first)), _mm_loadu_ps(second), 1)};
}
inline Vec8 load_twice(const float* p) { return {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))}; }

/// Four values next to each other, each four times.
template <class Value>
inline void spread_four(const Value* p, Vec8 (&two)[2]) {
  const __m128 values = adjacent_four(p);
  const __m256 four = _mm256_set_m128(values, values);
  two[0].v = _mm256_permutevar_ps(four, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
  two[1].v = _mm256_permutevar_ps(four, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
}

}  // namespace
