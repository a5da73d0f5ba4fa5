// Convert floats to stored weight types.
#pragma once

#include <cstdint>

#include "../kernels/packed_weight.h"

namespace sparsekit {

/// The nearest, ties to even; infinities and NaN stay what they are. Beyond 3.396e38 the nearest is an infinity.
BFloat16 to_bfloat16(float value);

/// The nearest, ties to even; infinities and NaN stay what they are. Throws std::invalid_argument for a finite value
/// that would become an infinity.
Float16 to_float16(float value);

/// A value in units of its row's scale, rounded to the nearest whole number, at most 127 either way.
std::int8_t quantize(float value, float scale);

/// The same of int4: from -8 to 7.
Int4 quantize_int4(float value, float scale);

inline float to_float(float value) { return value; }
inline float to_float(std::int8_t value) { return static_cast<float>(value); }
inline float to_float(Int4 value) { return static_cast<float>(value.code); }
float to_float(BFloat16 value);
float to_float(Float16 value);

}  // namespace sparsekit
