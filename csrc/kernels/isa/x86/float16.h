// Values of 16 bits as floats, for the instruction sets of x86 (F16C).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

/// What is subtracted from bytes before they are multiplied.
inline constexpr std::int32_t kByteOffset = 0;

/// What is left of 32 bits whose upper half is a BFloat16.
inline constexpr std::int32_t kUpperHalf = static_cast<std::int32_t>(0xFFFF0000U);

inline float widen(float value) { return value; }
inline float widen(std::int8_t value) { return static_cast<float>(value); }
inline float widen(sparsekit::BFloat16 value) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<std::int32_t>(std::uint32_t{value.bits} << 16))));
}
inline float widen(sparsekit::Float16 value) { return _cvtsh_ss(value.bits); }

/// The 32 bits whose upper half is `*p`; there is always something before the values of a weight.
inline std::int32_t upper_at(const sparsekit::BFloat16* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p - 1, sizeof bits);
  return bits;
}

/// Four values of one row (`value_place`).
inline __m128 four_values(const float* p) { return _mm_loadu_ps(p); }
inline __m128 four_values(const sparsekit::BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p - 1));
  return _mm_castsi128_ps(_mm_and_si128(bits, _mm_set1_epi32(kUpperHalf)));
}
inline __m128 four_values(const sparsekit::Float16* p) {
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

/// Four values next to each other.
inline __m128 adjacent_four(const float* p) { return _mm_loadu_ps(p); }
inline __m128 adjacent_four(const sparsekit::BFloat16* p) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16));
}
inline __m128 adjacent_four(const sparsekit::Float16* p) { return four_values(p); }
inline __m128 adjacent_four(const std::int8_t* p) {
  std::int32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
}

}  // namespace
