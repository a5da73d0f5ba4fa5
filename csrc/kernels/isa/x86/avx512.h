// Sixteen floats a vector, for every instruction set with AVX-512 (F, BW, DQ, VL).
#pragma once

#include "float16.h"

namespace {

inline constexpr int kRegisters = 32;

struct Vec {
  static constexpr int width = 16;
  __m512 v;

  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const sparsekit::BFloat16* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_words(p)), 16))};
  }
  static Vec load(const sparsekit::Float16* p) { return {_mm512_cvtph_ps(load_words(p))}; }
  static Vec load(const std::int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
  }
  static Vec load_masked(const float* p, std::int64_t count) { return {_mm512_maskz_loadu_ps(mask(count), p)}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
  static Vec broadcast(const sparsekit::BFloat16* p) {
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_set1_epi32(upper_at(p)), _mm512_set1_epi32(kUpperHalf)))};
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
    const __m512 four = _mm512_broadcast_f32x4(values);
    each[0].v = _mm512_permute_ps(four, 0x00);
    each[1].v = _mm512_permute_ps(four, 0x55);
    each[2].v = _mm512_permute_ps(four, 0xAA);
    each[3].v = _mm512_permute_ps(four, 0xFF);
  }
  static Vec zero() { return {_mm512_setzero_ps()}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store_masked(float* p, std::int64_t count) const { _mm512_mask_storeu_ps(p, mask(count), v); }

  static __m256i load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

  static __mmask16 mask(std::int64_t count) {
    return count >= width ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << count) - 1U);
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

// min and max return their second operand when one is NaN: a NaN in `x` comes through.
inline Vec min(Vec x, float limit) { return {_mm512_min_ps(_mm512_set1_ps(limit), x.v)}; }
inline Vec max(Vec x, float limit) { return {_mm512_max_ps(_mm512_set1_ps(limit), x.v)}; }
/// The float whose sign and exponent are the last nine bits of another.
inline Vec low_bits_to_exponent(Vec x) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x.v), 23))};
}

inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }

inline float reduce_min(Vec v) { return _mm512_reduce_min_ps(v.v); }
inline float reduce_max(Vec v) { return _mm512_reduce_max_ps(v.v); }
inline bool has_nan(Vec v) { return _mm512_cmp_ps_mask(v.v, v.v, _CMP_UNORD_Q) != 0; }

/// The nearest integer of every float, ties to even, and `added`, as bytes from 0 to 255.
inline void store_bytes(Vec v, std::int32_t added, std::uint8_t* p) {
  const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(v.v), _mm512_set1_epi32(added));
  const __m512i positive = _mm512_max_epi32(whole, _mm512_setzero_si512());
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(positive));
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vec (&v)[4], std::int32_t added, std::uint8_t* p) {
  const __m512i more = _mm512_set1_epi16(static_cast<short>(added));
  const auto words = [&](int i) {
    const __m512i both = _mm512_packs_epi32(_mm512_cvtps_epi32(v[i].v), _mm512_cvtps_epi32(v[i + 1].v));
    return _mm512_add_epi16(both, more);
  };
  // Every 128 bits hold four bytes of each vector.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words(0), words(2))));
}

/// Sixteen integers.
struct VecI32 {
  __m512i v;

  static VecI32 zero() { return {_mm512_setzero_si512()}; }
  static VecI32 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static VecI32 load_masked(const std::int32_t* p, std::int64_t count) {
    return {_mm512_maskz_loadu_epi32(Vec::mask(count), p)};
  }
  void store(std::int32_t* p) const { _mm512_storeu_si512(p, v); }
};

inline VecI32 operator+(VecI32 a, VecI32 b) { return {_mm512_add_epi32(a.v, b.v)}; }

inline Vec to_floats(VecI32 v) { return {_mm512_cvtepi32_ps(v.v)}; }

/// sums - zero_point * row_sums, as floats.
inline Vec without_zero_point(VecI32 sums, VecI32 row_sums, std::int32_t zero_point) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(sums.v, _mm512_mullo_epi32(row_sums.v, _mm512_set1_epi32(zero_point))))};
}

inline void transpose(Vec (&r)[16]) {
  __m512 a[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m512 b[16];
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xEE);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
  }
  // b[4 * g + c] holds, in its four 128-bit lanes l, column 4 * l + c of the rows 4 * g .. 4 * g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 low01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const __m512 high01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xDD);
    const __m512 low23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 high23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xDD);
    r[c].v = _mm512_shuffle_f32x4(low01, low23, 0x88);
    r[4 + c].v = _mm512_shuffle_f32x4(high01, high23, 0x88);
    r[8 + c].v = _mm512_shuffle_f32x4(low01, low23, 0xDD);
    r[12 + c].v = _mm512_shuffle_f32x4(high01, high23, 0xDD);
  }
}

inline void transpose(VecI32 (&r)[16]) {
  Vec v[16];
  for (int i = 0; i < 16; ++i) v[i].v = _mm512_castsi512_ps(r[i].v);
  transpose(v);
  for (int i = 0; i < 16; ++i) r[i].v = _mm512_castps_si512(v[i].v);
}

/// Eight floats: two of them fit where one `Vec` does, and a core runs more of them at a time.
struct Vec8 {
  static constexpr int width = 8;
  __m256 v;

  static Vec8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec8 broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec8 broadcast(const float* p) { return {_mm256_broadcast_ss(p)}; }
  static Vec8 broadcast(const sparsekit::BFloat16* p) {
    return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_set1_epi32(upper_at(p)), _mm256_set1_epi32(kUpperHalf)))};
  }
  static Vec8 broadcast(const sparsekit::Float16* p) { return broadcast(widen(*p)); }
  static Vec8 broadcast(const std::int8_t* p) { return broadcast(widen(*p)); }
  template <class Value>
  static void broadcast_four(const Value* p, Vec8 (&each)[4]) {
    broadcast_each(four_values(p), each);
  }
  template <class Value>
  static void broadcast_adjacent(const Value* p, Vec8 (&each)[4]) {
    broadcast_each(adjacent_four(p), each);
  }
  static void broadcast_each(__m128 values, Vec8 (&each)[4]) {
    const __m256 four = _mm256_set_m128(values, values);
    each[0].v = _mm256_permute_ps(four, 0x00);
    each[1].v = _mm256_permute_ps(four, 0x55);
    each[2].v = _mm256_permute_ps(four, 0xAA);
    each[3].v = _mm256_permute_ps(four, 0xFF);
  }
  static Vec8 zero() { return {_mm256_setzero_ps()}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Vec8 operator+(Vec8 a, Vec8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec8 fma(Vec8 a, Vec8 b, Vec8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

}  // namespace

#include "few_tokens.h"

namespace {

/// Vector `k` of the values of one row of every row group in a stripe: those of the slots 4 * k to 4 * k + 3.
inline Vec load_values(const float* values, int k) { return Vec::load(values + k * Vec::width); }
inline Vec load_values(const sparsekit::Float16* values, int k) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + k * Vec::width)))};
}
inline Vec load_values(const sparsekit::BFloat16* values, int k) {
  const __m512i bits = _mm512_loadu_si512(values + k / 2 * 32);
  return {_mm512_castsi512_ps(k % 2 == 0 ? _mm512_slli_epi32(bits, 16)
                                         : _mm512_and_si512(bits, _mm512_set1_epi32(kUpperHalf)))};
}

/// From number `4 * j + i` of vector `r` to number `16 * i + 4 * j + r` of all four in a row: with
/// `SlotIndex::by_four`, the rows of row groups of four.
inline void interleave(__m512 (&v)[4]) {
  const __m512 low01 = _mm512_unpacklo_ps(v[0], v[1]);
  const __m512 high01 = _mm512_unpackhi_ps(v[0], v[1]);
  const __m512 low23 = _mm512_unpacklo_ps(v[2], v[3]);
  const __m512 high23 = _mm512_unpackhi_ps(v[2], v[3]);
  v[0] = _mm512_shuffle_ps(low01, low23, 0x44);
  v[1] = _mm512_shuffle_ps(low01, low23, 0xEE);
  v[2] = _mm512_shuffle_ps(high01, high23, 0x44);
  v[3] = _mm512_shuffle_ps(high01, high23, 0xEE);
}

inline void interleave(Vec (&rows)[4]) {
  __m512 v[4] = {rows[0].v, rows[1].v, rows[2].v, rows[3].v};
  interleave(v);
  for (int r = 0; r < 4; ++r) rows[r].v = v[r];
}

/// Sixteen sums from sixteen times four: float `4 * j + i` of `part[k]` belongs to sum `4 * k + j`.
inline Vec reduce_quads(const Vec (&part)[4]) {
  const __m512 low01 = _mm512_unpacklo_ps(part[0].v, part[1].v);
  const __m512 high01 = _mm512_unpackhi_ps(part[0].v, part[1].v);
  const __m512 low23 = _mm512_unpacklo_ps(part[2].v, part[3].v);
  const __m512 high23 = _mm512_unpackhi_ps(part[2].v, part[3].v);
  const __m512 first = _mm512_add_ps(_mm512_shuffle_ps(low01, low23, 0x44), _mm512_shuffle_ps(low01, low23, 0xEE));
  const __m512 last = _mm512_add_ps(_mm512_shuffle_ps(high01, high23, 0x44), _mm512_shuffle_ps(high01, high23, 0xEE));
  // Float 4 * j + k is now sum 4 * k + j.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {_mm512_permutexvar_ps(order, _mm512_add_ps(first, last))};
}

inline void interleave(VecI32 (&rows)[4]) {
  __m512 v[4];
  for (int r = 0; r < 4; ++r) v[r] = _mm512_castsi512_ps(rows[r].v);
  interleave(v);
  for (int r = 0; r < 4; ++r) rows[r].v = _mm512_castps_si512(v[r]);
}

/// Sixteen bytes below 64, which name sixteen of the 64 numbers in four registers.
struct SlotIndex {
  __m512i index;
  __mmask16 upper;

  explicit SlotIndex(const std::uint8_t* p) : SlotIndex(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))) {}

  /// Number `4 * j + i` names what was named at `4 * i + j`: the order in which `interleave` takes row groups of four.
  static SlotIndex by_four(const std::uint8_t* p) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return SlotIndex(_mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), order));
  }

  Vec permute(const Vec (&from)[4]) const {
    return {_mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(from[0].v, index, from[1].v),
                                 _mm512_permutex2var_ps(from[2].v, index, from[3].v))};
  }
  VecI32 permute(const VecI32 (&from)[4]) const {
    return {_mm512_mask_blend_epi32(upper, _mm512_permutex2var_epi32(from[0].v, index, from[1].v),
                                    _mm512_permutex2var_epi32(from[2].v, index, from[3].v))};
  }

 private:
  explicit SlotIndex(__m128i bytes)
      : index(_mm512_cvtepu8_epi32(bytes)), upper(_mm512_test_epi32_mask(index, _mm512_set1_epi32(32))) {}
};

}  // namespace
