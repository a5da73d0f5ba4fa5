// NEON on every 64-bit Arm: four floats a vector; bytes are multiplied with 16-bit products.
#pragma once

#include "arm/bytes.h"

namespace {

/// Tokens from which a tile of them is interleaved; looking bytes up is faster below.
inline constexpr std::int64_t kFewestInterleaved = 9;

}  // namespace
