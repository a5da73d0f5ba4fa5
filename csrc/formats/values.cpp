#include "values.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

constexpr float kLargestFloat16 = 65504.0F;
constexpr float kRoundsToInfinity = 65520.0F;
/// Between two subnormal numbers of Float16.
constexpr float kSmallestFloat16 = 0x1p-24F;

std::uint16_t magnitude_bits(float magnitude) {
  if (std::isnan(magnitude)) return 0x7E00;
  if (std::isinf(magnitude)) return 0x7C00;
  if (magnitude >= kRoundsToInfinity) {
    throw std::invalid_argument("float16 values go up to " + std::to_string(kLargestFloat16) + ", got " +
                                std::to_string(magnitude) + "; use bfloat16");
  }
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  // The distance of the numbers around it: eleven bits, and never less than that of the subnormal ones.
  const float step = std::max(std::ldexp(1.0F, exponent - 11), kSmallestFloat16);
  const float rounded = std::nearbyint(magnitude / step) * step;
  if (rounded < 0x1p-14F) return static_cast<std::uint16_t>(rounded / kSmallestFloat16);
  return static_cast<std::uint16_t>((bits_of(rounded) - (112U << 23)) >> 13);
}

}  // namespace

BFloat16 to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if (std::isnan(value)) return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

Float16 to_float16(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  return {static_cast<std::uint16_t>(sign | magnitude_bits(std::fabs(value)))};
}

std::int8_t quantize(float value, float scale) {
  return static_cast<std::int8_t>(std::clamp(std::nearbyint(value / scale), -127.0F, 127.0F));
}

Int4 quantize_int4(float value, float scale) {
  return {static_cast<std::int8_t>(std::clamp(std::nearbyint(value / scale), -8.0F, 7.0F))};
}

float to_float(BFloat16 value) { return float_of(std::uint32_t{value.bits} << 16); }

float to_float(Float16 value) {
  const std::uint32_t rest = static_cast<std::uint32_t>(value.bits & 0x7FFF) << 13;
  const std::uint32_t exponent = value.bits & 0x7C00U;
  // A float is never subnormal here, so flushing those to zero changes nothing.
  const float magnitude = exponent == 0         ? static_cast<float>(value.bits & 0x3FF) * kSmallestFloat16
                          : exponent == 0x7C00U ? float_of(rest | 0x7F800000U)
                                                : float_of(rest + (112U << 23));
  return (value.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

}  // namespace sparsekit
