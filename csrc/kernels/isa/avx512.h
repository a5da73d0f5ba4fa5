// AVX-512 (F, BW, DQ, VL), as in Skylake servers: bytes are multiplied with 16-bit products.
#pragma once

#include "absent/byte_permute.h"
#include "x86/bytes_avx512.h"
#include "x86/permute_avx512.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 2,
    .min_interleaved = {.others = 15, .amd = 15},
    .layouts = sparsekit::kAvx512Layouts,
};

}  // namespace
