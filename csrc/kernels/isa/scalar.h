// Reference instruction set: one float a vector, compiled with the vectorizer off.
#pragma once

#include <cstdint>

#include "absent/byte_permute.h"
#include "absent/bytes.h"
#include "absent/few_tokens.h"
#include "absent/permute.h"

namespace {

inline constexpr int kRegisters = 16;

/// What is subtracted from bytes before they are multiplied.
inline constexpr std::int32_t kByteOffset = 0;

inline float from_bits(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

inline float widen(float value) { return value; }
inline float widen(std::int8_t value) { return static_cast<float>(value); }
inline float widen(sparsekit::BFloat16 value) { return from_bits(std::uint32_t{value.bits} << 16); }

/// The exponent of a float is 112 more than that of a Float16; subnormal ones are multiples of the smallest.
inline float widen(sparsekit::Float16 value) {
  const std::uint32_t sign = (value.bits & 0x8000U) << 16;
  const std::uint32_t rest = (value.bits & 0x7FFFU) << 13;
  const std::uint32_t exponent = value.bits & 0x7C00U;
  const float magnitude = exponent == 0         ? static_cast<float>(value.bits & 0x3FFU) * 0x1p-24F
                          : exponent == 0x7C00U ? from_bits(rest | 0x7F800000U)
                                                : from_bits(rest + (112U << 23));
  return __builtin_copysignf(magnitude, from_bits(sign));
}

struct Vec {
  static constexpr int width = 1;
  float v;

  template <class Value>
  static Vec load(const Value* p) {
    return {widen(*p)};
  }
  static Vec load_masked(const float* p, std::int64_t count) { return {count > 0 ? *p : 0.0F}; }
  static Vec broadcast(float x) { return {x}; }
  template <class Value>
  static Vec broadcast(const Value* p) {
    return {widen(*p)};
  }
  template <class Value>
  static void broadcast_four(const Value* p, Vec (&each)[4]) {
    for (unsigned i = 0; i < 4; ++i) each[i].v = widen(p[sparsekit::value_place<Value>(0, i)]);
  }
  template <class Value>
  static void broadcast_adjacent(const Value* p, Vec (&each)[4]) {
    for (unsigned i = 0; i < 4; ++i) each[i].v = widen(p[i]);
  }
  static Vec zero() { return {0.0F}; }
  void store(float* p) const { *p = v; }
  void store_masked(float* p, std::int64_t count) const {
    if (count > 0) *p = v;
  }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

// A NaN in `x` comes through, as in torch.clamp.
inline Vec min(Vec x, float limit) { return {x.v > limit ? limit : x.v}; }
inline Vec max(Vec x, float limit) { return {x.v < limit ? limit : x.v}; }

/// The float whose sign and exponent are the last nine bits of another.
inline Vec low_bits_to_exponent(Vec x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x.v, sizeof bits);
  return {from_bits(bits << 23)};
}

inline Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }

inline float reduce_min(Vec v) { return v.v; }
inline float reduce_max(Vec v) { return v.v; }
inline bool has_nan(Vec v) { return v.v != v.v; }

/// The nearest integer, ties to even, and `added`, as a byte from 0 to 255.
inline void store_bytes(Vec v, std::int32_t added, std::uint8_t* p) {
  const std::int32_t whole = static_cast<std::int32_t>(__builtin_rintf(v.v)) + added;
  *p = static_cast<std::uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vec (&v)[4], std::int32_t added, std::uint8_t* p) {
  for (int i = 0; i < 4; ++i) store_bytes(v[i], added, p + i);
}

/// One integer.
struct VecI32 {
  std::int32_t v;

  static VecI32 zero() { return {0}; }
  static VecI32 load(const std::int32_t* p) { return {*p}; }
  static VecI32 load_masked(const std::int32_t* p, std::int64_t count) { return {count > 0 ? *p : 0}; }
  void store(std::int32_t* p) const { *p = v; }
};

/// Parts that the products of four bytes of a token with four int8 values are computed in.
inline constexpr int kQuadParts = 1;

/// The four values of one row.
struct QuadValues {
  std::int8_t v[4];

  template <int part>
  static QuadValues load(const std::int8_t* p) {
    return {p[0], p[1], p[2], p[3]};
  }
};

struct QuadInput {
  std::uint8_t v[4];

  static QuadInput broadcast(const std::uint8_t* p) { return {p[0], p[1], p[2], p[3]}; }
};

inline VecI32 dot(VecI32 sum, QuadInput bytes, QuadValues values) {
  for (int i = 0; i < 4; ++i) sum.v += bytes.v[i] * values.v[i];
  return sum;
}

inline VecI32 operator+(VecI32 a, VecI32 b) { return {a.v + b.v}; }
inline Vec to_floats(VecI32 v) { return {static_cast<float>(v.v)}; }

/// Four weights from 0 to 15 of one row, as bytes.
struct NibbleQuad {
  std::uint8_t v[4];

  /// Those in the lower halves of bytes, and in the upper ones.
  static void load(const std::uint8_t* p, NibbleQuad (&two)[2]) {
    for (int i = 0; i < 4; ++i) {
      two[0].v[i] = p[i] & 15;
      two[1].v[i] = p[i] >> 4;
    }
  }
};

/// Four signed bytes of a token.
struct SignedQuad {
  std::int8_t v[4];

  static SignedQuad broadcast(const std::int8_t* p) { return {p[0], p[1], p[2], p[3]}; }
};

/// Quads that a `NibbleSum` adds before it would overflow.
inline constexpr int kNibbleQuads = 1 << 16;

/// Sum of products of nibbles and signed bytes.
struct NibbleSum {
  std::int32_t v;

  static NibbleSum zero() { return {0}; }
  void add(NibbleQuad weights, SignedQuad x) {
    for (int i = 0; i < 4; ++i) v += weights.v[i] * x.v[i];
  }
  VecI32 widened() const { return {v}; }
};

/// sums - zero_point * row_sums, as a float.
inline Vec without_zero_point(VecI32 sums, VecI32 row_sums, std::int32_t zero_point) {
  return {static_cast<float>(sums.v - zero_point * row_sums.v)};
}

inline void transpose(Vec (&)[1]) {}
inline void transpose(VecI32 (&)[1]) {}

/// Eight tokens' worth of a vector.
using Vec8 = Vec;

inline constexpr sparsekit::Thresholds kThresholds{.max_spmv_tokens = 1};

}  // namespace

#include "absent/byte_permute.h"
