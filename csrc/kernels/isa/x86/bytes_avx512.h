// The bytes of 64 tokens; multiplied with AVX-512 VNNI where the compiler may use it, else exactly with 16-bit
// products.
#pragma once

#include "avx512.h"
#include "bytes.h"

namespace {

/// Rows of a row group whose accumulators fit in registers together.
inline constexpr int kS8RowsInRegisters = 4;

struct VecU8 {
  __m512i v;

  static VecU8 load(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
};

/// From byte `i` of each to four bytes of every token.
inline void interleave(VecU8 (&each)[4]) {
  const __m512i low01 = _mm512_unpacklo_epi8(each[0].v, each[1].v);
  const __m512i high01 = _mm512_unpackhi_epi8(each[0].v, each[1].v);
  const __m512i low23 = _mm512_unpacklo_epi8(each[2].v, each[3].v);
  const __m512i high23 = _mm512_unpackhi_epi8(each[2].v, each[3].v);
  each[0].v = _mm512_unpacklo_epi16(low01, low23);
  each[1].v = _mm512_unpackhi_epi16(low01, low23);
  each[2].v = _mm512_unpacklo_epi16(high01, high23);
  each[3].v = _mm512_unpackhi_epi16(high01, high23);
}

/// Four bytes of one token, as they are packed for `kQuadParts`, for every row.
struct QuadInput {
  __m512i v;

  static QuadInput broadcast(const std::uint8_t* p) { return {_mm512_set1_epi32(load_int32(p))}; }
};

/// Four values of each row: those of one of `kQuadParts`, the parts that their products with a token are computed in.
struct QuadValues {
  __m512i v;

  template <int part>
  static QuadValues load(const std::int8_t* p);
};

#ifdef __AVX512VNNI__
struct Int8Quads {
  __m512i v;

  static Int8Quads broadcast(const std::int8_t* p) { return {_mm512_set1_epi32(load_int32(p))}; }
  static Int8Quads load(const std::int8_t* p) { return {_mm512_loadu_si512(p)}; }
};

inline VecI32 dot(VecI32 sum, VecU8 bytes, Int8Quads values) { return {_mm512_dpbusd_epi32(sum.v, bytes.v, values.v)}; }

inline constexpr int kQuadParts = 1;

template <int part>
QuadValues QuadValues::load(const std::int8_t* p) {
  return {_mm512_loadu_si512(p)};
}

inline VecI32 dot(VecI32 sum, QuadInput bytes, QuadValues values) {
  return {_mm512_dpbusd_epi32(sum.v, bytes.v, values.v)};
}
#else
/// Of 16 bits each: the first and third, and the second and fourth.
struct Int8Quads {
  __m512i even;
  __m512i odd;

  static Int8Quads broadcast(const std::int8_t* p) { return split(_mm512_set1_epi32(load_int32(p))); }
  static Int8Quads load(const std::int8_t* p) { return split(_mm512_loadu_si512(p)); }

 private:
  static Int8Quads split(__m512i v) { return {_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)}; }
};

inline VecI32 dot(VecI32 sum, VecU8 bytes, Int8Quads values) {
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512(bytes.v, _mm512_set1_epi16(0xFF)), values.even);
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(bytes.v, 8), values.odd);
  return {_mm512_add_epi32(sum.v, _mm512_add_epi32(even, odd))};
}

/// The first and third value and byte, and the second and fourth, of 16 bits each.
inline constexpr int kQuadParts = 2;

template <int part>
QuadValues QuadValues::load(const std::int8_t* p) {
  const __m512i quads = _mm512_loadu_si512(p);
  return {_mm512_srai_epi16(part == 0 ? _mm512_slli_epi16(quads, 8) : quads, 8)};
}

inline VecI32 dot(VecI32 sum, QuadInput words, QuadValues values) {
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(words.v, values.v))};
}
#endif

/// Four weights from 0 to 15 of each row, as bytes.
struct NibbleQuad {
  __m512i v;

  /// Those in the lower halves of bytes, and in the upper ones.
  static void load(const std::uint8_t* p, NibbleQuad (&two)[2]) {
    const __m512i bytes = _mm512_loadu_si512(p);
    const __m512i lower = _mm512_set1_epi8(15);
    two[0].v = _mm512_and_si512(bytes, lower);
    two[1].v = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), lower);
  }
};

/// Four signed bytes of a token, for every row.
struct SignedQuad {
  __m512i v;

  static SignedQuad broadcast(const std::int8_t* p) { return {_mm512_set1_epi32(load_int32(p))}; }
};

#ifdef __AVX512VNNI__
/// Quads that a `NibbleSum` adds before it would overflow.
inline constexpr int kNibbleQuads = 1 << 16;

/// Sums of products of nibbles and signed bytes, of each row.
struct NibbleSum {
  __m512i v;

  static NibbleSum zero() { return {_mm512_setzero_si512()}; }
  void add(NibbleQuad weights, SignedQuad x) { v = _mm512_dpbusd_epi32(v, weights.v, x.v); }
  VecI32 widened() const { return {v}; }
};
#else
/// Quads that a `NibbleSum` adds before it would overflow: a sum of two products is at most 3,810.
inline constexpr int kNibbleQuads = 8;

/// Sums of products of nibbles and signed bytes, two of 16 bits for each row.
struct NibbleSum {
  __m512i v;

  static NibbleSum zero() { return {_mm512_setzero_si512()}; }
  void add(NibbleQuad weights, SignedQuad x) { v = _mm512_add_epi16(v, _mm512_maddubs_epi16(weights.v, x.v)); }
  VecI32 widened() const { return {_mm512_madd_epi16(v, _mm512_set1_epi16(1))}; }
};
#endif

/// 128 bytes of one token, as eight tables of 16.
struct ByteTable {
  __m512i part[8];

  static ByteTable load(const std::uint8_t* p) {
    ByteTable table;
    for (int i = 0; i < 8; ++i) {
      table.part[i] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i)));
    }
    return table;
  }

  /// A look-up gives 0 for numbers with their upper bit: so that of a table has it, a column of another one is brought
  /// beyond 127.
  VecU8 look_up(const std::uint8_t* columns) const {
    __m512i column = VecU8::load(columns).v;
    __m512i found = _mm512_setzero_si512();
    for (int i = 0; i < 8; ++i) {
      const __m512i at = _mm512_adds_epu8(column, _mm512_set1_epi8(0x70));
      found = _mm512_or_si512(found, _mm512_shuffle_epi8(part[i], at));
      column = _mm512_sub_epi8(column, _mm512_set1_epi8(16));
    }
    return {found};
  }
};

}  // namespace
