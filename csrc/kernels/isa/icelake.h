// AVX-512 with VBMI and VNNI, as from Ice Lake on: inputs are picked from registers, many tokens interleaved.
#pragma once

#include "x86/bytes_avx512.h"
#include "x86/picks_vbmi.h"

namespace {

/// Tokens from which a tile of them is interleaved; picking is faster below.
inline constexpr std::int64_t kFewestInterleaved = 49;

}  // namespace
