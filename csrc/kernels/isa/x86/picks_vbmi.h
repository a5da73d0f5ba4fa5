// Inputs picked from registers as bytes, 128 at a time, for AVX-512 with VBMI and VNNI.
//
// A token's 128 inputs are kept as four planes, the first bytes of all of them, the second bytes and so on. One
// two-register permute picks 64 bytes of a plane; eight interleaving instructions make 64 floats of the four planes.
#pragma once

#include "avx512.h"

#define SPARSEKIT_PICKS_FROM_REGISTERS
#define SPARSEKIT_PICKS_BYTES

namespace {

/// With more tokens, a tile of eight is faster.
inline constexpr std::int64_t kMostFewTokens = 4;

/// The columns of a group as they lie, and which of them are real.
struct Columns {
  __m512i index;
  __mmask64 real;

  static Columns load(const std::uint8_t* p) {
    const __m512i index = _mm512_loadu_si512(p);
    return {index, _mm512_testn_epi8_mask(index, _mm512_set1_epi8(static_cast<char>(sparsekit::kPadding)))};
  }
};

/// 128 inputs of one token, of which 64 are picked by the columns of a group; padding picks 0.
struct Inputs {
  static constexpr std::int64_t kPackWidth = 64;
  __m512i low[4];   // plane i of the first 64 inputs
  __m512i high[4];  // and of the others

  /// 64 floats, of which `count` are read, become four planes of 64 bytes.
  static void pack(const float* row, std::int64_t count, float* out) {
    auto* planes = reinterpret_cast<std::uint8_t*>(out);
    for (std::int64_t i = 0; i < kPackWidth; i += 16) {
      const std::int64_t left = count > i ? count - i : 0;
      const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(Vector::first(left), row + i));
      for (unsigned p = 0; p < 4; ++p) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(planes + 64 * p + i),
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(bits, 8 * p)));
      }
    }
  }

  static Inputs load(const float* packed) {
    Inputs inputs;
    for (int p = 0; p < 4; ++p) {
      inputs.low[p] = _mm512_loadu_si512(packed + 16 * p);
      inputs.high[p] = _mm512_loadu_si512(packed + 64 + 16 * p);
    }
    return inputs;
  }

  void pick(const Columns& columns, Vector (&picked)[4]) const {
    __m512i plane[4];
    for (int p = 0; p < 4; ++p) {
      plane[p] = _mm512_maskz_permutex2var_epi8(columns.real, low[p], columns.index, high[p]);
    }
    const __m512i low01 = _mm512_unpacklo_epi8(plane[0], plane[1]);
    const __m512i high01 = _mm512_unpackhi_epi8(plane[0], plane[1]);
    const __m512i low23 = _mm512_unpacklo_epi8(plane[2], plane[3]);
    const __m512i high23 = _mm512_unpackhi_epi8(plane[2], plane[3]);
    picked[0].v = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low01, low23));
    picked[1].v = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low01, low23));
    picked[2].v = _mm512_castsi512_ps(_mm512_unpacklo_epi16(high01, high23));
    picked[3].v = _mm512_castsi512_ps(_mm512_unpackhi_epi16(high01, high23));
  }
};

/// 128 bytes of one token.
struct Bytes {
  __m512i low;
  __m512i high;

  static Bytes load(const std::uint8_t* p) { return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)}; }
  static __m512i columns(const void* p) { return _mm512_loadu_si512(p); }

  __m512i pick(__m512i columns) const { return _mm512_permutex2var_epi8(low, columns, high); }
};

/// To every sum the products of four bytes and four codes.
inline Sums dot(Sums sum, __m512i bytes, __m512i codes) { return {_mm512_dpbusd_epi32(sum.v, bytes, codes)}; }

}  // namespace
