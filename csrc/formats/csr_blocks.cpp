#include "csr_blocks.h"

#include <algorithm>
#include <numeric>

#include "row_groups.h"
#include "sell_window.h"
#include "sort_rows.h"

namespace sparsekit {
namespace {

/// Sorts a window of row groups, from `start` on, column block by column block. The number of entries of a slot goes
/// where the next slot's offset will be.
void plan_window(const CsrView& csr, std::int64_t height, const PackedShape& shape, std::int64_t start,
                 PackPlan& plan) {
  const std::int64_t size = std::min(kSortWindow, shape.slices * kSlice - start);
  SortWindow window(csr, height, start, size);
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    std::int64_t lengths[kSortWindow];
    for (std::int64_t g = 0; g < size; ++g) {
      lengths[g] = window.advance_to(csr, g, shape.first_column(b) + shape.block_width());
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

/// Writes the entries of a row group, column block by column block.
template <class Source, class Value, int height>
void fill_row_group(const CsrView& csr, const PackPlan& plan, const PackedShape& shape, std::int64_t row_group,
                    Value* values, std::uint8_t* columns) {
  const GroupRows<Source, height> rows(csr, plan, row_group);
  std::int64_t i = csr.crow_indices[row_group * height];
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    const std::uint8_t slot = plan.row_to_slot[static_cast<std::size_t>(shape.order_index(b, row_group))];
    const auto index = static_cast<std::size_t>(shape.order_index(b, sort_window_of(row_group)) + slot);
    for (std::int64_t to = plan.slice_offsets[index]; to < plan.slice_offsets[index + 1]; ++to, ++i) {
      columns[to] = static_cast<std::uint8_t>(csr.col_indices[i] - shape.first_column(b));
      for (std::int64_t r = 0; r < rows.count; ++r) {
        values[to * height + r] = stored<Value>(rows.values[r][i], rows.scales[r]);
      }
    }
  }
}

template <class Source, class Value, int height>
void fill_from(const CsrView& csr, const PackPlan& plan, Value* values, std::uint8_t* columns) {
  const PackedShape shape = shape_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  for (std::int64_t group = 0; group * height < csr.out_features; ++group) {
    fill_row_group<Source, Value, height>(csr, plan, shape, group, values, columns);
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

template <class Value, int height>
void fill_csr_blocks(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* typed = reinterpret_cast<Value*>(values);
  if (csr.dtype == kDType<Value>) {
    fill_from<Value, Value, height>(csr, plan, typed, columns);
  } else {
    fill_from<float, Value, height>(csr, plan, typed, columns);
  }
}

std::int64_t csr_entries_before(const PackedWeight& weight, std::int64_t row_group) {
  std::int64_t entries = 0;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    entries += weight.slot_offsets[weight.order_index(b, row_group)] - weight.slot_offsets[weight.order_index(b, 0)];
  }
  return entries;
}

template <class Value, int height>
AnyCsrArrays unpack_csr_blocks(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  auto csr = csr_with_capacity<Value>(weight.out_features, nnz);
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    const std::int64_t group = row / height;
    for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
      const std::int64_t slot = sort_window_of(group) + weight.row_to_slot[weight.order_index(b, group)];
      const std::uint32_t* offsets = weight.slot_offsets + weight.order_index(b, slot);
      for (std::int64_t i = offsets[0]; i < offsets[1]; ++i) {
        csr.col_indices.push_back(static_cast<std::int32_t>(weight.first_column(b) + weight.columns[i]));
        csr.values.push_back(values[i * height + row % height]);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

#define SPARSEKIT_CSR_BLOCKS(Value, height)                                                                 \
  template void fill_csr_blocks<Value, height>(const CsrView&, const PackPlan&, std::byte*, std::uint8_t*); \
  template AnyCsrArrays unpack_csr_blocks<Value, height>(const PackedWeight&, std::int64_t);
SPARSEKIT_CSR_BLOCKS(float, 1)
SPARSEKIT_CSR_BLOCKS(BFloat16, 1)
SPARSEKIT_CSR_BLOCKS(Float16, 1)
SPARSEKIT_CSR_BLOCKS(float, 4)
SPARSEKIT_CSR_BLOCKS(BFloat16, 4)
SPARSEKIT_CSR_BLOCKS(Float16, 4)
SPARSEKIT_CSR_BLOCKS(std::int8_t, 1)
SPARSEKIT_CSR_BLOCKS(std::int8_t, 4)
#undef SPARSEKIT_CSR_BLOCKS

}  // namespace sparsekit
