// AVX-512 with VNNI, as in Cascade Lake: bytes are multiplied four at a time.
#pragma once

#include "absent/byte_permute.h"
#include "x86/bytes_avx512.h"
#include "x86/permute_avx512.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 2,
    .min_interleaved = {.others = 9, .amd = 9},
    .layouts = sparsekit::kAvx512Layouts,
};

}  // namespace
