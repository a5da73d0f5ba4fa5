#include "sell_overlapping.h"

#include <algorithm>
#include <vector>

#include "sort_rows.h"

namespace sparsekit {
namespace {

/// The entries of a row group that no column block has taken yet.
struct Remaining {
  const std::int32_t* first;
  const std::int32_t* last;

  /// How many of them have columns below `limit`.
  std::int64_t below(std::int64_t limit) const {
    return std::find_if(first, last, [&](std::int32_t column) { return column >= limit; }) - first;
  }
};

Remaining all_of(const CsrView& csr, std::int64_t height, std::int64_t row_group) {
  const std::int64_t row = row_group * height;
  if (row >= csr.out_features) return {nullptr, nullptr};
  return {csr.col_indices + csr.crow_indices[row], csr.col_indices + csr.crow_indices[row + 1]};
}

/// One order of rows for all column blocks.
void order_rows(const std::vector<std::int64_t>& lengths, PackPlan& plan) {
  const auto slots = static_cast<std::int64_t>(lengths.size());
  for (std::int64_t first = 0; first < slots; first += kSortWindow) {
    const std::int64_t size = std::min(kSortWindow, slots - first);
    std::uint8_t* slot_to_row = plan.slot_to_row.data() + first;
    sort_rows(lengths.data() + first, slot_to_row, size);
    for (std::int64_t slot = 0; slot < size; ++slot) {
      plan.row_to_slot[static_cast<std::size_t>(first + slot_to_row[slot])] = static_cast<std::uint8_t>(slot);
    }
  }
}

/// Takes as many stripes for the slice as its longest row needs: those of its entries that do not lie in the next
/// column block too. The other rows fill theirs with entries that do.
void plan_slice(const PackedShape& shape, std::int64_t column_block, Remaining (&rows)[kSlice],
                std::uint8_t* row_lengths, PackPlan& plan) {
  const std::int64_t end = shape.first_column(column_block) + kColumnBlock;
  const std::int64_t next = column_block + 1 == shape.column_blocks ? end : shape.first_column(column_block + 1);
  std::int64_t longest = 0;
  for (const Remaining& row : rows) longest = std::max(longest, row.below(next));
  const std::int64_t stripes = (longest + kQuad - 1) / kQuad;
  for (Remaining& row : rows) {
    const std::int64_t length = std::min(row.below(end), stripes * kQuad);
    row.first += length;
    *row_lengths++ = static_cast<std::uint8_t>(length);
  }
  plan.slice_offsets.push_back(plan.slice_offsets.back() + static_cast<std::uint32_t>(stripes));
}

}  // namespace

void plan_overlapping(const CsrView& csr, std::int64_t height, const PackedShape& shape, PackPlan& plan) {
  std::vector<Remaining> groups;
  std::vector<std::int64_t> lengths;
  for (std::int64_t g = 0; g < shape.slices * kSlice; ++g) {
    groups.push_back(all_of(csr, height, g));
    lengths.push_back(groups.back().last - groups.back().first);
  }
  plan.slot_to_row.resize(groups.size());
  plan.row_to_slot.resize(groups.size());
  plan.row_lengths.resize(groups.size() * static_cast<std::size_t>(shape.column_blocks));
  order_rows(lengths, plan);
  for (std::int64_t first = 0; first < shape.slices * kSlice; first += kSlice) {
    Remaining rows[kSlice];
    for (std::int64_t i = 0; i < kSlice; ++i) {
      const std::uint8_t row = plan.slot_to_row[static_cast<std::size_t>(first + i)];
      rows[i] = groups[static_cast<std::size_t>(sort_window_of(first) + row)];
    }
    for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
      plan_slice(shape, b, rows, plan.row_lengths.data() + shape.length_index(b, first), plan);
    }
  }
}

}  // namespace sparsekit
