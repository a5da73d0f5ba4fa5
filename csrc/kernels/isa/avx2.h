// AVX2 with FMA and F16C: eight floats a vector; bytes are multiplied with 16-bit products.
#pragma once

#include "absent/byte_permute.h"
#include "absent/permute.h"
#include "x86/avx2.h"
#include "x86/bytes_avx2.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 1,
    .min_interleaved = {.others = 5, .amd = 5},
    .layouts = sparsekit::kAvx2Layouts,
};

}  // namespace
