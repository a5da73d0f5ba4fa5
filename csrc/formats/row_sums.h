// Sums of the int8 values of rows, which kernels that quantize their input need.
#pragma once

#include <cstdint>
#include <vector>

#include "csr.h"

namespace sparsekit {

/// Of every row: [out_features]. `scales`: of the rows, for float values. Throws std::invalid_argument where the sum of
/// a row's products with bytes could leave 32 bits.
std::vector<std::int32_t> row_sums_of(const CsrView& csr, const std::vector<float>& scales);

}  // namespace sparsekit
