// Reference instruction set: one float a vector, compiled with the vectoriser off.
#pragma once

#include <cstdint>

namespace {

struct Vector {
  static constexpr int width = 1;
  float v;

  static Vector load(const float* p) { return {*p}; }
  static Vector load_first(const float* p, std::int64_t count) { return {count > 0 ? *p : 0.0F}; }
  static Vector broadcast(float x) { return {x}; }
  static void broadcast_four(const float* p, Vector (&each)[4]) {
    for (int i = 0; i < 4; ++i) each[i].v = p[i];
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
  const auto power = [](std::int32_t e) {
    const std::uint32_t bits = static_cast<std::uint32_t>(e + 127) << 23;
    float f;
    __builtin_memcpy(&f, &bits, sizeof f);
    return f;
  };
  return {x.v * power(half) * power(whole - half)};
}

inline Vector smaller_of(Vector a, Vector b) { return {a.v < b.v ? a.v : b.v}; }

/// The nearest whole number, ties to even, and `added`, as a byte from 0 to 255.
inline void store_bytes(Vector v, std::int32_t added, std::uint8_t* p) {
  const std::int32_t whole = static_cast<std::int32_t>(__builtin_rintf(v.v)) + added;
  *p = static_cast<std::uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

/// sum - factor * total, as a float.
inline Vector shifted_sums(const std::int32_t* sums, const std::int32_t* totals, std::int32_t factor, std::int64_t) {
  return {static_cast<float>(*sums - factor * *totals)};
}

inline void transpose(Vector (&)[1]) {}

/// Eight tokens' worth of a vector.
using Eight = Vector;

}  // namespace
