// AVX2 with AVX-VNNI, as from Alder Lake on: bytes are multiplied four at a time.
#pragma once

#include "absent/byte_permute.h"
#include "absent/permute.h"
#include "x86/avx2.h"
#include "x86/bytes_avx2.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 1,
    .min_interleaved = {.others = 5, .amd = 5},
    .layouts = sparsekit::kAvxVnniLayouts,
};

}  // namespace
