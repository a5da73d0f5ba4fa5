// AVX-512 with VNNI, as in Cascade Lake: bytes are multiplied four at a time.
#pragma once

#include "x86/bytes_avx512.h"
#include "x86/picks_avx512.h"

namespace {

/// Tokens from which a tile of them is interleaved; looking bytes up is faster below.
inline constexpr std::int64_t kFewestInterleaved = 9;

}  // namespace
