// Overlapping column blocks (int8 values): each begins half of its width after the one before, so that most inputs lie
// in two of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "packed.h"

namespace sparsekit {

/// The rows of a sort window in the order of their `lengths`, most first.
template <class Length>
void sort_rows(const Length* lengths, std::uint8_t* slot_to_row, std::int64_t size) {
  std::iota(slot_to_row, slot_to_row + size, std::uint8_t{0});
  std::stable_sort(slot_to_row, slot_to_row + size,
                   [&](std::uint8_t a, std::uint8_t b) { return lengths[a] > lengths[b]; });
}

/// Fills `slice_offsets`, `row_lengths`, `slot_to_row` and `row_to_slot` of `plan`.
void plan_overlapping(const CsrView& csr, std::int64_t height, const PackedShape& shape, PackPlan& plan);

}  // namespace sparsekit
