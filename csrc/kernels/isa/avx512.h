// AVX-512 (F, BW, DQ, VL), as in Skylake servers: bytes are multiplied with 16-bit products.
#pragma once

#include "x86/bytes_avx512.h"
#include "x86/picks_avx512.h"

namespace {

/// Tokens from which a tile of them is interleaved; looking bytes up is faster below.
inline constexpr std::int64_t kFewestInterleaved = 15;

}  // namespace
