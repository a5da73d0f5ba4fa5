#include "csr_blocks.h"

#include <algorithm>
#include <numeric>

#include "row_groups.h"
#include "sell_window.h"
#include "sort_rows.h"

namespace sparsekit {
namespace {

/// Sorts a window of row groups, starting at `start`, column block by column block. A slot's count is stored at the
/// position of the next slot's offset.
void plan_window(const CsrView& csr, std::int64_t height, const PackedShape& shape, std::int64_t start,
                 PackPlan& plan) {
  const std::int64_t size = std::min(kSortWindow, shape.slices * kSlice - start);
  SortWindow window(csr, height, start, size);
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    std::int64_t lengths[kSortWindow];
    for (std::int64_t g = 0; g < size; ++g) {
      lengths[g] = window.advance_to(csr, g, shape.first_column(b) + shape.width);
    }
    const auto at = static_cast<std::size_t>(shape.order_index(b, start));
    std::uint8_t* slot_to_row = plan.slot_to_row.data() + at;
    sort_rows(lengths, slot_to_row, size);
    for (std::int64_t slot = 0; slot < size; ++slot) {
      plan.row_to_slot[at + slot_to_row[slot]] = static_cast<std::uint8_t>(slot);
      plan.slice_offsets[at + static_cast<std::size_t>(slot) + 1] =
          static_cast<std::uint32_t>(lengths[slot_to_row[slot]]);
    }
  }
}

/// Columns of a slot's entries, while they are written.
template <Family family>
void put_column(std::uint8_t* columns, std::size_t slot, std::int64_t entry, std::int64_t column) {
  if constexpr (family == Family::bitmask) {
    columns[slot * kMaskBytes + static_cast<std::size_t>(column / 8)] |= static_cast<std::uint8_t>(1U << column % 8);
  } else {
    columns[entry] = static_cast<std::uint8_t>(column);
  }
}

/// Calls `visit` with the columns of a slot's entries.
template <Family family, class Visit>
void for_columns(const PackedWeight& weight, std::int64_t slot, const Visit& visit) {
  if constexpr (family == Family::bitmask) {
    const std::uint8_t* mask = weight.columns + slot * kMaskBytes;
    for (std::int64_t column = 0; column < kCsrColumnBlock; ++column) {
      if ((mask[column / 8] >> column % 8 & 1) != 0) visit(column);
    }
  } else {
    for (std::int64_t i = weight.slot_offsets[slot]; i < weight.slot_offsets[slot + 1]; ++i) visit(weight.columns[i]);
  }
}

/// Writes the entries of a row group, column block by column block.
template <class Source, class Value, int height, Family family>
void fill_row_group(const CsrView& csr, const PackPlan& plan, const PackedShape& shape, std::int64_t row_group,
                    Value* values, std::uint8_t* columns) {
  const GroupRows<Source, height> rows(csr, plan, row_group);
  std::int64_t i = csr.crow_indices[row_group * height];
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    const std::uint8_t slot = plan.row_to_slot[static_cast<std::size_t>(shape.order_index(b, row_group))];
    const auto index = static_cast<std::size_t>(shape.order_index(b, sort_window_of(row_group)) + slot);
    for (std::int64_t to = plan.slice_offsets[index]; to < plan.slice_offsets[index + 1]; ++to, ++i) {
      put_column<family>(columns, index, to, csr.col_indices[i] - shape.first_column(b));
      for (std::int64_t r = 0; r < rows.count; ++r) {
        values[to * height + r] = stored<Value>(rows.values[r][i], rows.scales[r]);
      }
    }
  }
}

template <class Source, class Value, int height, Family family>
void fill_from(const CsrView& csr, const PackPlan& plan, Value* values, std::uint8_t* columns) {
  const PackedShape shape = shape_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  for (std::int64_t group = 0; group * height < csr.out_features; ++group) {
    fill_row_group<Source, Value, height, family>(csr, plan, shape, group, values, columns);
  }
}

}  // namespace

void plan_csr_blocks(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan) {
  const PackedShape shape = shape_for(layout, csr.out_features, csr.in_features);
  const std::int64_t slots = shape.slices * kSlice;
  const auto all = static_cast<std::size_t>(shape.column_blocks * slots);
  plan.slot_to_row.resize(all);
  plan.row_to_slot.resize(all);
  plan.slice_offsets.assign(all + 1, 0);
  for (std::int64_t start = 0; start < slots; start += kSortWindow) {
    plan_window(csr, layout.height, shape, start, plan);
  }
  std::partial_sum(plan.slice_offsets.begin(), plan.slice_offsets.end(), plan.slice_offsets.begin());
}

template <class Value, int height, Family family>
void fill_csr_blocks(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* typed = reinterpret_cast<Value*>(values);
  if (csr.dtype == kDType<Value>) {
    fill_from<Value, Value, height, family>(csr, plan, typed, columns);
  } else {
    fill_from<float, Value, height, family>(csr, plan, typed, columns);
  }
}

std::int64_t csr_entries_before(const PackedWeight& weight, std::int64_t row_group) {
  std::int64_t entries = 0;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    entries += weight.slot_offsets[weight.order_index(b, row_group)] - weight.slot_offsets[weight.order_index(b, 0)];
  }
  return entries;
}

template <class Value, int height, Family family>
AnyCsrArrays unpack_csr_blocks(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  auto csr = csr_with_capacity<Value>(weight.out_features, nnz);
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    const std::int64_t group = row / height;
    for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
      const std::int64_t slot = sort_window_of(group) + weight.row_to_slot[weight.order_index(b, group)];
      const std::int64_t index = weight.order_index(b, slot);
      std::int64_t i = weight.slot_offsets[index];
      for_columns<family>(weight, index, [&](std::int64_t column) {
        csr.col_indices.push_back(static_cast<std::int32_t>(weight.first_column(b) + column));
        csr.values.push_back(values[i++ * height + row % height]);
      });
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

#define SPARSEKIT_CSR_BLOCKS(Value, height, family)                                                                 \
  template void fill_csr_blocks<Value, height, family>(const CsrView&, const PackPlan&, std::byte*, std::uint8_t*); \
  template AnyCsrArrays unpack_csr_blocks<Value, height, family>(const PackedWeight&, std::int64_t);
#define SPARSEKIT_CSR_BLOCKS_OF(Value)        \
  SPARSEKIT_CSR_BLOCKS(Value, 1, Family::csr) \
  SPARSEKIT_CSR_BLOCKS(Value, 4, Family::csr) \
  SPARSEKIT_CSR_BLOCKS(Value, 1, Family::bitmask)
SPARSEKIT_CSR_BLOCKS_OF(float)
SPARSEKIT_CSR_BLOCKS_OF(BFloat16)
SPARSEKIT_CSR_BLOCKS_OF(Float16)
SPARSEKIT_CSR_BLOCKS_OF(std::int8_t)
#undef SPARSEKIT_CSR_BLOCKS_OF
#undef SPARSEKIT_CSR_BLOCKS

}  // namespace sparsekit
