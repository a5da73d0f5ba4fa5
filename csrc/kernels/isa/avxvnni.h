// AVX2 with AVX-VNNI, as from Alder Lake on: bytes are multiplied four at a time.
#pragma once

#include "x86/avx2.h"
#include "x86/bytes_avx2.h"

namespace {

/// Tokens from which a tile of them is interleaved; looking bytes up is faster below.
inline constexpr std::int64_t kFewestInterleaved = 5;

}  // namespace
