// Inputs permuted across registers as bytes, 128 at a time, for AVX-512 with VBMI and VNNI.
//
// A token's 128 inputs are kept as four planes, the first bytes of all of them, the second bytes and so on. One
// two-register permute takes 64 bytes from a plane; eight interleaving instructions make 64 floats of the four planes.
#pragma once

#include "avx512.h"

namespace {

inline constexpr bool kPermutesInputs = true;
inline constexpr bool kPermutesBytes = true;

/// The columns of a stripe as they lie, and which of them are real.
struct Columns {
  __m512i index;
  __mmask64 real;

  static Columns load(const std::uint8_t* p) {
    const __m512i index = _mm512_loadu_si512(p);
    return {index, _mm512_testn_epi8_mask(index, _mm512_set1_epi8(static_cast<char>(sparsekit::kPaddingColumn)))};
  }
};

/// 128 inputs of one token, of which the columns of a stripe choose 64; padding permutes to 0.
struct Inputs {
  static constexpr std::int64_t kPackWidth = 64;
  __m512i low[4];   // plane i of the first 64 inputs
  __m512i high[4];  // and of the others

  /// 64 floats, of which `count` are read, become four planes of 64 bytes.
  static void pack(const float* row, std::int64_t count, float* out) {
    auto* planes = reinterpret_cast<std::uint8_t*>(out);
    for (std::int64_t i = 0; i < kPackWidth; i += 16) {
      const std::int64_t left = count > i ? count - i : 0;
      const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(Vec::mask(left), row + i));
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

  void permute(const Columns& columns, Vec (&permuted)[4]) const {
    __m512i plane[4];
    for (int p = 0; p < 4; ++p) {
      plane[p] = _mm512_maskz_permutex2var_epi8(columns.real, low[p], columns.index, high[p]);
    }
    const __m512i low01 = _mm512_unpacklo_epi8(plane[0], plane[1]);
    const __m512i high01 = _mm512_unpackhi_epi8(plane[0], plane[1]);
    const __m512i low23 = _mm512_unpacklo_epi8(plane[2], plane[3]);
    const __m512i high23 = _mm512_unpackhi_epi8(plane[2], plane[3]);
    permuted[0].v = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low01, low23));
    permuted[1].v = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low01, low23));
    permuted[2].v = _mm512_castsi512_ps(_mm512_unpacklo_epi16(high01, high23));
    permuted[3].v = _mm512_castsi512_ps(_mm512_unpackhi_epi16(high01, high23));
  }
};

/// 128 bytes of one token.
struct InputBytes {
  __m512i low;
  __m512i high;

  static InputBytes load(const std::uint8_t* p) { return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)}; }
  static __m512i load_stripe(const void* p) { return _mm512_loadu_si512(p); }

  __m512i permute(__m512i columns) const { return _mm512_permutex2var_epi8(low, columns, high); }
};

/// To every sum the products of four bytes and four values.
inline VecI32 dot(VecI32 sum, __m512i bytes, __m512i values) { return {_mm512_dpbusd_epi32(sum.v, bytes, values)}; }

}  // namespace
