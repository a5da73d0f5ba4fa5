#include "sell.h"

#include <algorithm>

#include "csr_blocks.h"
#include "sell_overlapping.h"
#include "sell_window.h"
#include "sort_rows.h"

namespace sparsekit {
namespace {

/// Sorts a window of row groups, from `start` on, column block by column block.
void plan_window(const CsrView& csr, const LayoutEntry& layout, const PackedShape& shape, std::int64_t start,
                 PackPlan& plan) {
  const std::int64_t size = std::min(kSortWindow, shape.slices * kSlice - start);
  SortWindow window(csr, layout.height, start, size);
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    std::uint8_t lengths[kSortWindow];
    for (std::int64_t g = 0; g < size; ++g) {
      lengths[g] = static_cast<std::uint8_t>(window.advance_to(csr, g, shape.first_column(b) + kColumnBlock));
      if (layout.paired) window.find_columns(csr, g, shape.first_column(b));
    }
    const auto at = static_cast<std::size_t>(shape.order_index(b, start));
    std::uint8_t* slot_to_row = plan.slot_to_row.data() + at;
    sort_rows(lengths, slot_to_row, size);
    for (std::int64_t s = 0; layout.paired && s < size; s += kSlice) pair_rows(window.sets, slot_to_row + s);
    for (std::int64_t slot = 0; slot < size; ++slot) {
      plan.row_to_slot[at + slot_to_row[slot]] = static_cast<std::uint8_t>(slot);
      plan.row_lengths[at + static_cast<std::size_t>(slot)] = lengths[slot_to_row[slot]];
    }
  }
}

void plan_column_blocks(const CsrView& csr, const LayoutEntry& layout, const PackedShape& shape, PackPlan& plan) {
  const std::int64_t slots = shape.slices * kSlice;
  for (auto* array : {&plan.row_lengths, &plan.slot_to_row, &plan.row_to_slot}) {
    array->resize(static_cast<std::size_t>(shape.column_blocks * slots));
  }
  for (std::int64_t start = 0; start < slots; start += kSortWindow) plan_window(csr, layout, shape, start, plan);
  for (auto slice = plan.row_lengths.begin(); slice != plan.row_lengths.end(); slice += kSlice) {
    const std::uint32_t longest = *std::max_element(slice, slice + kSlice);
    plan.slice_offsets.push_back(plan.slice_offsets.back() + (longest + kQuad - 1) / kQuad);
  }
}

}  // namespace

void plan_sell(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan) {
  const PackedShape shape = shape_for(layout, csr.out_features, csr.in_features);
  plan.slice_offsets.assign(1, 0);
  if (layout.overlapping) {
    plan_overlapping(csr, layout.height, shape, plan);
  } else {
    plan_column_blocks(csr, layout, shape, plan);
  }
}

std::int64_t work_before(const PackedWeight& weight, std::int64_t row_group) {
  if (weight.family == Family::dense) return row_group * weight.padded_features();
  if (!weight.sliced()) return csr_entries_before(weight, row_group);
  const std::int64_t slice = row_group / kSlice;
  if (weight.overlapping) return std::int64_t{weight.slice_offsets[weight.slice_index(0, slice)]} * kStripe;
  std::int64_t stripes = 0;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const std::uint32_t* offsets = weight.slice_offsets + b * weight.slices;
    stripes += offsets[slice] - offsets[0];
  }
  return stripes * kStripe;
}

}  // namespace sparsekit
