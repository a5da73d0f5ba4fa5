// Four floats a vector, for 64-bit Arm.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {

inline constexpr int kRegisters = 32;

inline float widen(float value) { return value; }
inline float widen(sparsekit::BFloat16 value) {
  return vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(std::uint32_t{value.bits} << 16)), 0);
}
inline float widen(sparsekit::Float16 value) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value.bits))), 0);
}

/// Four values of one lane (`value_slot`).
inline float32x4_t four_values(const float* p) { return vld1q_f32(p); }
inline float32x4_t four_values(const sparsekit::BFloat16* p) {
  // Upper halves of 32 bits; there is always something before the values of a weight.
  const uint32x4_t bits = vreinterpretq_u32_u16(vld1q_u16(&p[-1].bits));
  return vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xFFFF0000U)));
}
inline float32x4_t four_values(const sparsekit::Float16* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
}

struct Vector {
  static constexpr int width = 4;
  float32x4_t v;

  static Vector load(const float* p) { return {vld1q_f32(p)}; }
  static Vector load_first(const float* p, std::int64_t count) {
    float four[width] = {0.0F, 0.0F, 0.0F, 0.0F};
    for (std::int64_t i = 0; i < count && i < width; ++i) four[i] = p[i];
    return load(four);
  }
  static Vector broadcast(float x) { return {vdupq_n_f32(x)}; }
  template <class Value>
  static Vector broadcast(const Value* p) {
    return broadcast(widen(*p));
  }
  template <class Value>
  static void broadcast_four(const Value* p, Vector (&each)[4]) {
    const float32x4_t four = four_values(p);
    each[0].v = vdupq_laneq_f32(four, 0);
    each[1].v = vdupq_laneq_f32(four, 1);
    each[2].v = vdupq_laneq_f32(four, 2);
    each[3].v = vdupq_laneq_f32(four, 3);
  }
  static Vector zero() { return {vdupq_n_f32(0.0F)}; }
  void store(float* p) const { vst1q_f32(p, v); }
  void store_first(float* p, std::int64_t count) const {
    float four[width];
    store(four);
    for (std::int64_t i = 0; i < count && i < width; ++i) p[i] = four[i];
  }
};

inline Vector operator+(Vector a, Vector b) { return {vaddq_f32(a.v, b.v)}; }
inline Vector operator-(Vector a, Vector b) { return {vsubq_f32(a.v, b.v)}; }
inline Vector operator*(Vector a, Vector b) { return {vmulq_f32(a.v, b.v)}; }
inline Vector operator/(Vector a, Vector b) { return {vdivq_f32(a.v, b.v)}; }
inline Vector fma(Vector a, Vector b, Vector c) { return {vfmaq_f32(c.v, a.v, b.v)}; }

// min and max return NaN when one operand is NaN: a NaN in `x` comes through.
inline Vector at_most(Vector x, float limit) { return {vminq_f32(x.v, vdupq_n_f32(limit))}; }
inline Vector at_least(Vector x, float limit) { return {vmaxq_f32(x.v, vdupq_n_f32(limit))}; }
inline Vector absolute(Vector x) { return {vabsq_f32(x.v)}; }
inline Vector with_sign_of(Vector magnitude, Vector sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000U), sign.v, magnitude.v)};
}
inline Vector round_nearest(Vector x) { return {vrndnq_f32(x.v)}; }

/// x * 2^n for whole n in [-252, 254]: two factors, so that neither overflows nor vanishes early.
inline Vector times_power_of_two(Vector x, Vector n) {
  const int32x4_t whole = vcvtq_s32_f32(n.v);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const auto power = [](int32x4_t e) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23)); };
  return {vmulq_f32(vmulq_f32(x.v, power(half)), power(vsubq_s32(whole, half)))};
}

inline Vector smaller_of(Vector a, Vector b) { return {vminq_f32(a.v, b.v)}; }
inline Vector larger_of(Vector a, Vector b) { return {vmaxq_f32(a.v, b.v)}; }

inline float least_of(Vector v) { return vminvq_f32(v.v); }
inline float most_of(Vector v) { return vmaxvq_f32(v.v); }
inline bool has_nan(Vector v) { return vminvq_u32(vceqq_f32(v.v, v.v)) == 0; }

/// The nearest whole number of every float, ties to even, and `added`, as bytes from 0 to 255.
inline void store_bytes(Vector v, std::int32_t added, std::uint8_t* p) {
  const int32x4_t whole = vaddq_s32(vcvtnq_s32_f32(v.v), vdupq_n_s32(added));
  const uint16x4_t words = vqmovun_s32(whole);
  const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
  vst1_lane_u32(reinterpret_cast<std::uint32_t*>(p), vreinterpret_u32_u8(bytes), 0);
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vector (&v)[4], std::int32_t added, std::uint8_t* p) {
  for (int i = 0; i < 4; ++i) store_bytes(v[i], added, p + i * Vector::width);
}

/// Four whole numbers.
struct Sums {
  int32x4_t v;

  static Sums zero() { return {vdupq_n_s32(0)}; }
  static Sums load(const std::int32_t* p) { return {vld1q_s32(p)}; }
  void store(std::int32_t* p) const { vst1q_s32(p, v); }
  static Sums load_first(const std::int32_t* p, std::int64_t count) {
    std::int32_t four[Vector::width] = {0, 0, 0, 0};
    for (std::int64_t i = 0; i < count && i < Vector::width; ++i) four[i] = p[i];
    return load(four);
  }
};

/// sums - factor * totals, as floats.
inline Vector shifted(Sums sums, Sums totals, std::int32_t factor) {
  return {vcvtq_f32_s32(vmlsq_s32(sums.v, totals.v, vdupq_n_s32(factor)))};
}

inline void transpose(Vector (&r)[4]) {
  const float32x4_t even01 = vtrn1q_f32(r[0].v, r[1].v);
  const float32x4_t odd01 = vtrn2q_f32(r[0].v, r[1].v);
  const float32x4_t even23 = vtrn1q_f32(r[2].v, r[3].v);
  const float32x4_t odd23 = vtrn2q_f32(r[2].v, r[3].v);
  const auto pairs = [](float32x4_t a) { return vreinterpretq_f64_f32(a); };
  r[0].v = vreinterpretq_f32_f64(vtrn1q_f64(pairs(even01), pairs(even23)));
  r[1].v = vreinterpretq_f32_f64(vtrn1q_f64(pairs(odd01), pairs(odd23)));
  r[2].v = vreinterpretq_f32_f64(vtrn2q_f64(pairs(even01), pairs(even23)));
  r[3].v = vreinterpretq_f32_f64(vtrn2q_f64(pairs(odd01), pairs(odd23)));
}

inline void transpose(Sums (&r)[4]) {
  Vector v[4];
  for (int i = 0; i < 4; ++i) v[i].v = vreinterpretq_f32_s32(r[i].v);
  transpose(v);
  for (int i = 0; i < 4; ++i) r[i].v = vreinterpretq_s32_f32(v[i].v);
}

/// Eight tokens' worth of a vector.
using Eight = Vector;

}  // namespace
