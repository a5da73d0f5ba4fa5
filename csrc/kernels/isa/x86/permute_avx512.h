// Inputs permuted across registers as floats, 32 at a time, for AVX-512 without VBMI.
#pragma once

#include "avx512.h"

namespace {

inline constexpr bool kPermutesInputs = true;

/// The columns of a stripe, four times sixteen, widened to 32 bits.
struct Columns {
  __m512i index[4];

  static Columns load(const std::uint8_t* p) {
    // Bytes 4 * k .. 4 * k + 3 of every 128 bits become the four 32-bit numbers there of index[k].
    const __m512i bytes = _mm512_loadu_si512(p);
    const __m512i spread =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1));
    Columns columns;
    for (int k = 0; k < 4; ++k) {
      columns.index[k] = _mm512_shuffle_epi8(bytes, _mm512_add_epi8(spread, _mm512_set1_epi32(4 * k)));
    }
    return columns;
  }
};

/// 128 inputs of one token, of which the columns of a stripe choose 64; padding permutes to 0.
struct Inputs {
  static constexpr std::int64_t kPackWidth = 16;
  __m512 x[8];

  static void pack(const float* row, std::int64_t count, float* out) { Vec::load_masked(row, count).store(out); }

  static Inputs load(const float* packed) {
    Inputs inputs;
    for (int i = 0; i < 8; ++i) inputs.x[i] = _mm512_loadu_ps(packed + i * 16);
    return inputs;
  }

  void permute(const Columns& columns, Vec (&permuted)[4]) const {
    for (int k = 0; k < 4; ++k) {
      const __m512i column = columns.index[k];
      const __mmask16 upper32 = _mm512_test_epi32_mask(column, _mm512_set1_epi32(32));
      const __mmask16 upper64 = _mm512_test_epi32_mask(column, _mm512_set1_epi32(64));
      const __mmask16 real = _mm512_testn_epi32_mask(column, _mm512_set1_epi32(sparsekit::kPaddingColumn));
      const __m512 low = _mm512_mask_blend_ps(upper32, _mm512_permutex2var_ps(x[0], column, x[1]),
                                              _mm512_permutex2var_ps(x[2], column, x[3]));
      const __m512 high = _mm512_mask_blend_ps(upper32, _mm512_permutex2var_ps(x[4], column, x[5]),
                                               _mm512_permutex2var_ps(x[6], column, x[7]));
      permuted[k].v = _mm512_maskz_mov_ps(real, _mm512_mask_blend_ps(upper64, low, high));
    }
  }
};

}  // namespace
