// The `lanes` layout (kernels/views.h): 16 rows side by side, padded to equal counts; made for a few tokens.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Input features a block: as many as two AVX-512 registers hold.
inline constexpr std::int64_t kLanesBlockWidth = 32;

std::int64_t lanes_cells(std::int64_t out_features, std::int64_t blocks);
std::vector<std::uint32_t> lanes_starts(const CsrView& csr);
void lanes_fill(const CsrView& csr, const PackedArrays& arrays);
CsrArrays lanes_unpack(const PackedWeight& weight, std::int64_t nnz);
std::int64_t lanes_work_before(const PackedWeight& weight, std::int64_t row);

}  // namespace sparsekit
