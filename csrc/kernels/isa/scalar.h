// Reference instruction set: one float a vector, compiled with the vectoriser off.
#pragma once

#include <cstdint>

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

struct Vector {
  static constexpr int width = 1;
  float v;

  static Vector load(const float* p) { return {*p}; }
  static Vector load_first(const float* p, std::int64_t count) { return {count > 0 ? *p : 0.0F}; }
  static Vector broadcast(float x) { return {x}; }
  template <class Value>
  static Vector broadcast(const Value* p) {
    return {widen(*p)};
  }
  template <class Value>
  static void broadcast_four(const Value* p, Vector (&each)[4]) {
    for (unsigned i = 0; i < 4; ++i) each[i].v = widen(p[sparsekit::value_slot<Value>(0, i)]);
  }
  static Vector zero() { return {0.0F}; }
  void store(float* p) const { *p = v; }
  void store_first(float* p, std::int64_t count) const {
    if (count > 0) *p = v;
  }
};

inline Vector operator+(Vector a, Vector b) { return {a.v + b.v}; }
inline Vector operator-(Vector a, Vector b) { return {a.v - b.v}; }
inline Vector operator*(Vector a, Vector b) { return {a.v * b.v}; }
inline Vector operator/(Vector a, Vector b) { return {a.v / b.v}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {a.v * b.v + c.v}; }

// A NaN in `x` comes through, as in torch.clamp.
inline Vector at_most(Vector x, float limit) { return {x.v > limit ? limit : x.v}; }
inline Vector at_least(Vector x, float limit) { return {x.v < limit ? limit : x.v}; }
inline Vector absolute(Vector x) { return {__builtin_fabsf(x.v)}; }
inline Vector with_sign_of(Vector magnitude, Vector sign) { return {__builtin_copysignf(magnitude.v, sign.v)}; }
inline Vector round_nearest(Vector x) { return {__builtin_rintf(x.v)}; }

/// x * 2^n for whole n in [-252, 254]: two factors, so that neither overflows nor vanishes early.
inline Vector times_power_of_two(Vector x, Vector n) {
  const auto whole = static_cast<std::int32_t>(n.v == n.v ? n.v : 0.0F);
  const std::int32_t half = whole >> 1;
  const auto power = [](std::int32_t e) { return from_bits(static_cast<std::uint32_t>(e + 127) << 23); };
  return {x.v * power(half) * power(whole - half)};
}

inline Vector smaller_of(Vector a, Vector b) { return {a.v < b.v ? a.v : b.v}; }
inline Vector larger_of(Vector a, Vector b) { return {a.v > b.v ? a.v : b.v}; }

inline float least_of(Vector v) { return v.v; }
inline float most_of(Vector v) { return v.v; }
inline bool has_nan(Vector v) { return v.v != v.v; }

/// The nearest whole number, ties to even, and `added`, as a byte from 0 to 255.
inline void store_bytes(Vector v, std::int32_t added, std::uint8_t* p) {
  const std::int32_t whole = static_cast<std::int32_t>(__builtin_rintf(v.v)) + added;
  *p = static_cast<std::uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vector (&v)[4], std::int32_t added, std::uint8_t* p) {
  for (int i = 0; i < 4; ++i) store_bytes(v[i], added, p + i);
}

/// One whole number.
struct Sums {
  std::int32_t v;

  static Sums load(const std::int32_t* p) { return {*p}; }
  static Sums load_first(const std::int32_t* p, std::int64_t count) { return {count > 0 ? *p : 0}; }
};

/// sums - factor * totals, as a float.
inline Vector shifted(Sums sums, Sums totals, std::int32_t factor) {
  return {static_cast<float>(sums.v - factor * totals.v)};
}

inline void transpose(Vector (&)[1]) {}

/// Eight tokens' worth of a vector.
using Eight = Vector;

}  // namespace
