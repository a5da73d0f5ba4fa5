// The `panel` layout (kernels/views.h): no padding, the smallest; made for tiles of many tokens.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Input features a block. At most 256, since a column inside a block is one byte. With 128 the block's part of a
/// 64-token tile is 32 KB and stays in L1.
inline constexpr std::int64_t kPanelBlockWidth = 128;

std::int64_t panel_cells(std::int64_t out_features, std::int64_t blocks);
std::vector<std::uint32_t> panel_starts(const CsrView& csr);
void panel_fill(const CsrView& csr, const PackedArrays& arrays);
CsrArrays panel_unpack(const PackedWeight& weight, std::int64_t nnz);
std::int64_t panel_work_before(const PackedWeight& weight, std::int64_t row);

}  // namespace sparsekit
