// NEON with dot products, as from Cortex-A75 and Neoverse N1 on: bytes are multiplied four at a time.
#pragma once

#include "arm/bytes.h"

namespace {

/// Tokens from which a tile of them is interleaved; looking bytes up is faster below.
inline constexpr std::int64_t kFewestInterleaved = 9;

}  // namespace
