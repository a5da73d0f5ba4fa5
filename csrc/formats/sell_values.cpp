// Values and columns of the SELL layouts: written from a CSR, and read back.
#include <algorithm>
#include <utility>

#include "../kernels/range.h"
#include "row_groups.h"
#include "sell.h"
#include "sell_pairs.h"
#include "sell_window.h"

namespace sparsekit {
namespace {

/// Where entries of one slot lie, counted from the start of all values or columns.
template <class Value, int height>
struct SlotPlaces {
  std::int64_t stripe;
  unsigned slot;

  SlotPlaces(const std::uint32_t* slice_offsets, std::int64_t length_index)
      : stripe(slice_offsets[length_index / kSlice]), slot(static_cast<unsigned>(length_index % kSlice)) {}

  std::int64_t value(std::int64_t i, std::int64_t row) const {
    return ((stripe + i / kQuad) * height + row) * kStripe + value_place<Value>(slot, static_cast<unsigned>(i % kQuad));
  }
  std::int64_t column(std::int64_t i) const {
    return (stripe + i / kQuad) * kStripe + column_place<Value>(slot) + i % kQuad;
  }
};

/// Writes the entries of a row group in a column block, `[first, last)` of its first row, to `places`.
template <class Source, class Value, int height>
void fill_slot(const GroupRows<Source, height>& rows, const std::int32_t* col_indices, Range entries,
               std::int64_t first_column, EntryOrder order, const SlotPlaces<Value, height>& places, Value* values,
               std::uint8_t* columns) {
  for (std::int64_t i = entries.first; i < entries.last; ++i) {
    const auto column = static_cast<std::uint8_t>(col_indices[i] - first_column);
    const auto to = static_cast<std::int64_t>(order.next(column));
    columns[places.column(to)] = column;
    for (std::int64_t r = 0; r < rows.count; ++r) {
      values[places.value(to, r)] = stored<Value>(rows.values[r][i], rows.scales[r]);
    }
  }
}

/// Writes the entries of a row group, column block by column block.
template <class Source, class Value, int height>
void fill_row_group(const CsrView& csr, const PackPlan& plan, const PackedShape& shape, std::int64_t row_group,
                    Value* values, std::uint8_t* columns) {
  const GroupRows<Source, height> rows(csr, plan, row_group);
  std::int64_t first = csr.crow_indices[row_group * height];
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    const std::uint8_t slot = plan.row_to_slot[static_cast<std::size_t>(shape.order_index(b, row_group))];
    const std::int64_t at = shape.length_index(b, sort_window_of(row_group) + slot);
    const std::int64_t last = first + plan.row_lengths[static_cast<std::size_t>(at)];
    fill_slot(rows, csr.col_indices, {first, last}, shape.first_column(b), EntryOrder(),
              SlotPlaces<Value, height>(plan.slice_offsets.data(), at), values, columns);
    first = last;
  }
}

/// Writes the entries of a sort window, from `start` on, where neighbors share inputs.
template <class Source, class Value, int height>
void fill_paired_window(const CsrView& csr, const PackPlan& plan, const PackedShape& shape, std::int64_t start,
                        Value* values, std::uint8_t* columns) {
  const std::int64_t size = std::min(kSortWindow, shape.slices * kSlice - start);
  SortWindow window(csr, height, start, size);
  for (std::int64_t b = 0; b < shape.column_blocks; ++b) {
    const std::uint8_t* slot_to_row = plan.slot_to_row.data() + shape.order_index(b, start);
    for (std::int64_t slot = 0; slot < size; ++slot) {
      const auto at = static_cast<std::size_t>(shape.length_index(b, start + slot));
      window.advance_by(csr, slot_to_row[slot], plan.row_lengths[at]);
      window.find_columns(csr, slot_to_row[slot], shape.first_column(b));
    }
    std::size_t shared = 0;
    for (std::int64_t slot = 0; slot < size; ++slot) {
      const std::int64_t g = slot_to_row[slot];
      if (slot % kSlice == 0) shared = shared_entries(window.sets, slot_to_row + slot);
      fill_slot(GroupRows<Source, height>(csr, plan, start + g), csr.col_indices, {window.first[g], window.last[g]},
                shape.first_column(b), EntryOrder(window.sets[g], window.sets[slot_to_row[slot ^ 1]], shared),
                SlotPlaces<Value, height>(plan.slice_offsets.data(), shape.length_index(b, start + slot)), values,
                columns);
    }
  }
}

template <class Source, class Value, int height>
void fill_from(const CsrView& csr, const PackPlan& plan, Value* values, std::uint8_t* columns) {
  const PackedShape shape = shape_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  if constexpr (kPairsRows<Value, height>) {
    for (std::int64_t start = 0; start < shape.slices * kSlice; start += kSortWindow) {
      fill_paired_window<Source, Value, height>(csr, plan, shape, start, values, columns);
    }
  } else {
    for (std::int64_t group = 0; group * height < csr.out_features; ++group) {
      fill_row_group<Source, Value, height>(csr, plan, shape, group, values, columns);
    }
  }
}

}  // namespace

template <class Value, int height>
void fill_sell(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* typed = reinterpret_cast<Value*>(values);
  if (csr.dtype == kDType<Value>) {
    fill_from<Value, Value, height>(csr, plan, typed, columns);
  } else {
    fill_from<float, Value, height>(csr, plan, typed, columns);
  }
}

template <class Value, int height>
AnyCsrArrays unpack_sell(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  auto csr = csr_with_capacity<Value>(weight.out_features, nnz);
  std::vector<std::pair<std::int32_t, Value>> entries;
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    const std::int64_t group = row / height;
    for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
      const std::int64_t slot = sort_window_of(group) + weight.row_to_slot[weight.order_index(b, group)];
      const std::int64_t at = weight.length_index(b, slot);
      const SlotPlaces<Value, height> places(weight.slice_offsets, at);
      entries.clear();
      for (std::int64_t i = 0; i < weight.row_lengths[at]; ++i) {
        entries.emplace_back(static_cast<std::int32_t>(weight.first_column(b) + weight.columns[places.column(i)]),
                             values[places.value(i, row % height)]);
      }
      std::sort(entries.begin(), entries.end(),
                [](const auto& one, const auto& other) { return one.first < other.first; });
      for (const auto& [column, value] : entries) {
        csr.col_indices.push_back(column);
        csr.values.push_back(value);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

#define SPARSEKIT_SELL(Value, height)                                                                 \
  template void fill_sell<Value, height>(const CsrView&, const PackPlan&, std::byte*, std::uint8_t*); \
  template AnyCsrArrays unpack_sell<Value, height>(const PackedWeight&, std::int64_t);
SPARSEKIT_SELL(float, 1)
SPARSEKIT_SELL(BFloat16, 1)
SPARSEKIT_SELL(Float16, 1)
SPARSEKIT_SELL(std::int8_t, 1)
SPARSEKIT_SELL(float, 4)
SPARSEKIT_SELL(BFloat16, 4)
SPARSEKIT_SELL(Float16, 4)
SPARSEKIT_SELL(std::int8_t, 4)
#undef SPARSEKIT_SELL

}  // namespace sparsekit
