// NEON with dot products, as from Cortex-A75 and Neoverse N1 on: bytes are multiplied four at a time.
#pragma once

#include "absent/byte_permute.h"
#include "absent/few_tokens.h"
#include "absent/permute.h"
#include "arm/bytes.h"

namespace {

inline constexpr sparsekit::Thresholds kThresholds{
    .max_spmv_tokens = 1,
    .min_interleaved = {.others = 9, .amd = 9},
    .layouts = sparsekit::kNeonLayouts,
};

}  // namespace
