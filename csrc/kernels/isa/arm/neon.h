// Four floats a vector, for 64-bit Arm.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {

inline constexpr int kRegisters = 32;

inline float widen(float value) { return value; }
inline float widen(std::int8_t value) { return static_cast<float>(value); }
inline float widen(sparsekit::BFloat16 value) {
  return vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(std::uint32_t{value.bits} << 16)), 0);
}
inline float widen(sparsekit::Float16 value) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value.bits))), 0);
}

/// Four values of one row (`value_place`).
inline float32x4_t four_values(const float* p) { return vld1q_f32(p); }
inline float32x4_t four_values(const sparsekit::BFloat16* p) {
  // Upper halves of 32 bits; there is always something before the values of a weight.
  const uint32x4_t bits = vreinterpretq_u32_u16(vld1q_u16(&p[-1].bits));
  return vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xFFFF0000U)));
}
inline float32x4_t four_values(const sparsekit::Float16* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
}

/// Four values next to each other.
inline float32x4_t adjacent_four(const float* p) { return vld1q_f32(p); }
inline float32x4_t adjacent_four(const sparsekit::BFloat16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
}
inline float32x4_t adjacent_four(const sparsekit::Float16* p) { return four_values(p); }
inline float32x4_t adjacent_four(const std::int8_t* p) {
  std::uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const int16x8_t words = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
}

struct Vec {
  static constexpr int width = 4;
  float32x4_t v;

  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const sparsekit::BFloat16* p) { return {adjacent_four(p)}; }
  static Vec load(const sparsekit::Float16* p) { return {adjacent_four(p)}; }
  static Vec load(const std::int8_t* p) { return {adjacent_four(p)}; }
  static Vec load_masked(const float* p, std::int64_t count) {
    float four[width] = {0.0F, 0.0F, 0.0F, 0.0F};
    for (std::int64_t i = 0; i < count && i < width; ++i) four[i] = p[i];
    return load(four);
  }
  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  template <class Value>
  static Vec broadcast(const Value* p) {
    return broadcast(widen(*p));
  }
  template <class Value>
  static void broadcast_four(const Value* p, Vec (&each)[4]) {
    broadcast_each(four_values(p), each);
  }
  template <class Value>
  static void broadcast_adjacent(const Value* p, Vec (&each)[4]) {
    broadcast_each(adjacent_four(p), each);
  }
  static void broadcast_each(float32x4_t four, Vec (&each)[4]) {
    each[0].v = vdupq_laneq_f32(four, 0);
    each[1].v = vdupq_laneq_f32(four, 1);
    each[2].v = vdupq_laneq_f32(four, 2);
    each[3].v = vdupq_laneq_f32(four, 3);
  }
  static Vec zero() { return {vdupq_n_f32(0.0F)}; }
  void store(float* p) const { vst1q_f32(p, v); }
  void store_masked(float* p, std::int64_t count) const {
    float four[width];
    store(four);
    for (std::int64_t i = 0; i < count && i < width; ++i) p[i] = four[i];
  }
};

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }

// min and max return NaN when one operand is NaN: a NaN in `x` comes through.
inline Vec min(Vec x, float limit) { return {vminq_f32(x.v, vdupq_n_f32(limit))}; }
inline Vec max(Vec x, float limit) { return {vmaxq_f32(x.v, vdupq_n_f32(limit))}; }

/// The float whose sign and exponent are the last nine bits of another.
inline Vec low_bits_to_exponent(Vec x) { return {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(x.v), 23))}; }

inline Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }

inline float reduce_min(Vec v) { return vminvq_f32(v.v); }
inline float reduce_max(Vec v) { return vmaxvq_f32(v.v); }
inline bool has_nan(Vec v) { return vminvq_u32(vceqq_f32(v.v, v.v)) == 0; }

/// The nearest integer of every float, ties to even, and `added`, as bytes from 0 to 255.
inline void store_bytes(Vec v, std::int32_t added, std::uint8_t* p) {
  const int32x4_t whole = vaddq_s32(vcvtnq_s32_f32(v.v), vdupq_n_s32(added));
  const uint16x4_t words = vqmovun_s32(whole);
  const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
  vst1_lane_u32(reinterpret_cast<std::uint32_t*>(p), vreinterpret_u32_u8(bytes), 0);
}

/// The same of four vectors.
inline void store_bytes_of_four(const Vec (&v)[4], std::int32_t added, std::uint8_t* p) {
  for (int i = 0; i < 4; ++i) store_bytes(v[i], added, p + i * Vec::width);
}

/// Four integers.
struct VecI32 {
  int32x4_t v;

  static VecI32 zero() { return {vdupq_n_s32(0)}; }
  static VecI32 load(const std::int32_t* p) { return {vld1q_s32(p)}; }
  void store(std::int32_t* p) const { vst1q_s32(p, v); }
  static VecI32 load_masked(const std::int32_t* p, std::int64_t count) {
    std::int32_t four[Vec::width] = {0, 0, 0, 0};
    for (std::int64_t i = 0; i < count && i < Vec::width; ++i) four[i] = p[i];
    return load(four);
  }
};

inline VecI32 operator+(VecI32 a, VecI32 b) { return {vaddq_s32(a.v, b.v)}; }
inline Vec to_floats(VecI32 v) { return {vcvtq_f32_s32(v.v)}; }

/// sums - zero_point * row_sums, as floats.
inline Vec without_zero_point(VecI32 sums, VecI32 row_sums, std::int32_t zero_point) {
  return {vcvtq_f32_s32(vmlsq_s32(sums.v, row_sums.v, vdupq_n_s32(zero_point)))};
}

inline void transpose(Vec (&r)[4]) {
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

inline void transpose(VecI32 (&r)[4]) {
  Vec v[4];
  for (int i = 0; i < 4; ++i) v[i].v = vreinterpretq_f32_s32(r[i].v);
  transpose(v);
  for (int i = 0; i < 4; ++i) r[i].v = vreinterpretq_s32_f32(v[i].v);
}

/// Eight tokens' worth of a vector.
using Vec8 = Vec;

}  // namespace
