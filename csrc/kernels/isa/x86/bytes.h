// Bytes of tokens, for the instruction sets of x86 that interleave them (spmm_sell_s8.h).
#pragma once

#include "float16.h"

namespace {

inline constexpr bool kInterleavesBytes = true;

/// 16 rows of 64 bytes to 64 rows of 16; strides in bytes.
inline void transpose_bytes(const std::uint8_t* from, std::int64_t from_stride, std::uint8_t* to,
                            std::int64_t to_stride) {
  for (std::int64_t part = 0; part < 4; ++part) {
    __m128i rows[16];
    for (int i = 0; i < 16; ++i) {
      rows[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride + part * 16));
    }
    for (int round = 0; round < 4; ++round) {
      __m128i merged[16];
      for (int i = 0; i < 8; ++i) {
        merged[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
        merged[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
      }
      for (int i = 0; i < 16; ++i) rows[i] = merged[i];
    }
    for (int i = 0; i < 16; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (part * 16 + i) * to_stride), rows[i]);
    }
  }
}

/// Four bytes, whatever they are.
inline std::int32_t load_int32(const void* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}

}  // namespace
