// The bytes of 16 tokens; multiplied with dot products where the compiler may use them, else with 16-bit products.
#pragma once

#include "neon.h"

namespace {

inline constexpr bool kInterleavesBytes = true;

/// Rows of a row group whose accumulators fit in registers together.
inline constexpr int kS8RowsInRegisters = 4;

/// 16 rows of 64 bytes to 64 rows of 16; strides in bytes.
inline void transpose_bytes(const std::uint8_t* from, std::int64_t from_stride, std::uint8_t* to,
                            std::int64_t to_stride) {
  for (std::int64_t part = 0; part < 4; ++part) {
    uint8x16_t rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = vld1q_u8(from + i * from_stride + part * 16);
    for (int round = 0; round < 4; ++round) {
      uint8x16_t merged[16];
      for (int i = 0; i < 8; ++i) {
        merged[2 * i] = vzip1q_u8(rows[i], rows[i + 8]);
        merged[2 * i + 1] = vzip2q_u8(rows[i], rows[i + 8]);
      }
      for (int i = 0; i < 16; ++i) rows[i] = merged[i];
    }
    for (int i = 0; i < 16; ++i) vst1q_u8(to + (part * 16 + i) * to_stride, rows[i]);
  }
}

struct VecU8 {
  uint8x16_t v;

  static VecU8 load(const std::uint8_t* p) { return {vld1q_u8(p)}; }
};

/// From byte `i` of each to four bytes of every token.
inline void interleave(VecU8 (&each)[4]) {
  const auto words = [](uint8x16_t v) { return vreinterpretq_u16_u8(v); };
  const uint16x8_t low01 = words(vzip1q_u8(each[0].v, each[1].v));
  const uint16x8_t high01 = words(vzip2q_u8(each[0].v, each[1].v));
  const uint16x8_t low23 = words(vzip1q_u8(each[2].v, each[3].v));
  const uint16x8_t high23 = words(vzip2q_u8(each[2].v, each[3].v));
  each[0].v = vreinterpretq_u8_u16(vzip1q_u16(low01, low23));
  each[1].v = vreinterpretq_u8_u16(vzip2q_u16(low01, low23));
  each[2].v = vreinterpretq_u8_u16(vzip1q_u16(high01, high23));
  each[3].v = vreinterpretq_u8_u16(vzip2q_u16(high01, high23));
}

/// Four bytes, whatever they are.
inline std::int32_t load_int32(const void* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}

/// Four values of one row for each of four tokens, or the values of four rows.
struct Int8Quads {
  int8x16_t v;

  static Int8Quads broadcast(const std::int8_t* p) { return {vreinterpretq_s8_s32(vdupq_n_s32(load_int32(p)))}; }
  static Int8Quads load(const std::int8_t* p) { return {vld1q_s8(p)}; }
};

/// Four weights from 0 to 15 of each row, as bytes.
struct NibbleQuad {
  int8x16_t v;

  /// Those in the lower halves of bytes, and in the upper ones.
  static void load(const std::uint8_t* p, NibbleQuad (&two)[2]) {
    const uint8x16_t bytes = vld1q_u8(p);
    two[0].v = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
    two[1].v = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
  }
};

/// Four signed bytes of a token, for every row.
struct SignedQuad {
  int8x16_t v;

  static SignedQuad broadcast(const std::int8_t* p) { return {vreinterpretq_s8_s32(vdupq_n_s32(load_int32(p)))}; }
};

#ifdef __ARM_FEATURE_DOTPROD
/// Quads that a `NibbleSum` adds before it would overflow.
inline constexpr int kNibbleQuads = 1 << 16;

/// Sums of products of nibbles and signed bytes, of each row.
struct NibbleSum {
  int32x4_t v;

  static NibbleSum zero() { return {vdupq_n_s32(0)}; }
  void add(NibbleQuad weights, SignedQuad x) { v = vdotq_s32(v, weights.v, x.v); }
  VecI32 widened() const { return {v}; }
};
#else
/// Quads that a `NibbleSum` adds before it would overflow: a sum of two products is at most 3,810.
inline constexpr int kNibbleQuads = 8;

/// Sums of products of nibbles and signed bytes, two of 16 bits for each row.
struct NibbleSum {
  int16x8_t v;

  static NibbleSum zero() { return {vdupq_n_s16(0)}; }
  void add(NibbleQuad weights, SignedQuad x) {
    const int16x8_t low = vmull_s8(vget_low_s8(weights.v), vget_low_s8(x.v));
    v = vaddq_s16(v, vpaddq_s16(low, vmull_high_s8(weights.v, x.v)));
  }
  VecI32 widened() const { return {vpaddlq_s16(v)}; }
};
#endif

/// 128 bytes of one token, as two tables of 64.
struct ByteTable {
  uint8x16x4_t low;
  uint8x16x4_t high;

  static ByteTable load(const std::uint8_t* p) {
    ByteTable table;
    for (int i = 0; i < 4; ++i) {
      table.low.val[i] = vld1q_u8(p + 16 * i);
      table.high.val[i] = vld1q_u8(p + 64 + 16 * i);
    }
    return table;
  }

  VecU8 look_up(const std::uint8_t* columns) const {
    const uint8x16_t column = vld1q_u8(columns);
    return {vqtbx4q_u8(vqtbl4q_u8(low, column), high, vsubq_u8(column, vdupq_n_u8(64)))};
  }
};

#ifdef __ARM_FEATURE_DOTPROD
/// What is subtracted from bytes before they are multiplied: they are multiplied as signed numbers.
inline constexpr std::int32_t kByteOffset = 128;

inline VecI32 dot(VecI32 sum, VecU8 bytes, Int8Quads values) {
  return {vdotq_s32(sum.v, vreinterpretq_s8_u8(veorq_u8(bytes.v, vdupq_n_u8(128))), values.v)};
}

/// Parts that the products of four bytes of a token with four int8 values are computed in, for a vector of rows.
inline constexpr int kQuadParts = 1;

struct QuadValues {
  int8x16_t v;

  template <int part>
  static QuadValues load(const std::int8_t* p) {
    return {vld1q_s8(p)};
  }
};

/// Bytes less `kByteOffset`.
struct QuadInput {
  int8x16_t v;

  static QuadInput broadcast(const std::uint8_t* p) { return {vreinterpretq_s8_s32(vdupq_n_s32(load_int32(p)))}; }
};

inline VecI32 dot(VecI32 sum, QuadInput bytes, QuadValues values) { return {vdotq_s32(sum.v, bytes.v, values.v)}; }
#else
inline constexpr std::int32_t kByteOffset = 0;

inline VecI32 dot(VecI32 sum, VecU8 bytes, Int8Quads values) {
  const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes.v)));
  const int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(bytes.v)));
  const auto products = [](int16x8_t x, int16x8_t value) {
    const int32x4_t first = vmull_s16(vget_low_s16(x), vget_low_s16(value));
    return vpaddq_s32(first, vmull_s16(vget_high_s16(x), vget_high_s16(value)));
  };
  const int32x4_t first = products(low, vmovl_s8(vget_low_s8(values.v)));
  return {vaddq_s32(sum.v, vpaddq_s32(first, products(high, vmovl_s8(vget_high_s8(values.v)))))};
}

/// Parts that the products of four bytes of a token with four int8 values are computed in, for a vector of rows: the
/// first and third, and the second and fourth, of 16 bits each.
inline constexpr int kQuadParts = 2;

struct QuadValues {
  int16x8_t v;

  template <int part>
  static QuadValues load(const std::int8_t* p) {
    const int16x8_t quads = vreinterpretq_s16_s8(vld1q_s8(p));
    return {vshrq_n_s16(part == 0 ? vshlq_n_s16(quads, 8) : quads, 8)};
  }
};

struct QuadInput {
  int16x8_t v;

  static QuadInput broadcast(const std::uint8_t* p) { return {vreinterpretq_s16_s32(vdupq_n_s32(load_int32(p)))}; }
};

inline VecI32 dot(VecI32 sum, QuadInput words, QuadValues values) {
  const int32x4_t low = vmull_s16(vget_low_s16(words.v), vget_low_s16(values.v));
  return {vaddq_s32(sum.v, vpaddq_s32(low, vmull_s16(vget_high_s16(words.v), vget_high_s16(values.v))))};
}
#endif

}  // namespace
