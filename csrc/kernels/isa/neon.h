// NEON on every 64-bit Arm: four floats a vector; bytes are multiplied with 16-bit products.
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
