// Overlapping column blocks (int8 values): each begins half of its width after the one before, so that most inputs lie
// in two of them.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Fills `slice_offsets`, `row_lengths`, `slot_to_row` and `row_to_slot` of `plan`.
void plan_overlapping(const CsrView& csr, std::int64_t height, const PackedShape& shape, PackPlan& plan);

}  // namespace sparsekit
