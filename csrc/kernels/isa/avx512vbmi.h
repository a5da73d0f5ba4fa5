// AVX-512 with VNNI and VBMI, as from Ice Lake and Zen 4 on: bytes are permuted across registers.
//
// AMD's processors permute bytes of two registers every cycle, which is faster than to interleave any number of tokens;
// Intel's every other cycle.
#pragma once

#include "x86/bytes_avx512.h"
#include "x86/permute_vbmi.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 4,
    .min_permuted_tile = {.others = sparsekit::kNever, .amd = 33},
    .min_interleaved = {.others = 49, .amd = sparsekit::kNever},
    .layouts = sparsekit::kAvx512Layouts,
};

}  // namespace
