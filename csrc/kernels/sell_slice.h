// Walking the slices of a packed weight (formats/sell.h): the entries of one row lie four by four, a stripe apart.
#pragma once

#include <cstddef>

#include "packed_weight.h"

namespace {

inline constexpr std::int64_t kSlicesOfWindow = sparsekit::kSortWindow / sparsekit::kSlice;

/// Prefetch distance in bytes, from the values of the current slice.
inline constexpr std::int64_t kPrefetchDistance = 4096;

/// A layout as kernels are compiled for it: the type of a value, and the rows of a row group.
template <class Stored, int rows, sparsekit::Layout which>
struct Sell {
  using Value = Stored;
  static constexpr int height = rows;
  static constexpr sparsekit::Layout layout = which;
  static constexpr std::int64_t values = rows * sparsekit::kStripe;  // of a stripe
};

using SellF32 = Sell<float, 1, sparsekit::Layout::sell_f32>;
using SellF16 = Sell<sparsekit::Float16, 1, sparsekit::Layout::sell_fp16>;
using SellBF16 = Sell<sparsekit::BFloat16, 1, sparsekit::Layout::sell_bf16>;
using SellS8 = Sell<std::int8_t, 1, sparsekit::Layout::sell_s8>;
using Sell4x1F32 = Sell<float, 4, sparsekit::Layout::sell_4x1_f32>;
using Sell4x1F16 = Sell<sparsekit::Float16, 4, sparsekit::Layout::sell_4x1_fp16>;
using Sell4x1BF16 = Sell<sparsekit::BFloat16, 4, sparsekit::Layout::sell_4x1_bf16>;
using Sell4x1S8 = Sell<std::int8_t, 4, sparsekit::Layout::sell_4x1_s8>;

/// Row groups of a range of output features that starts at a sort window.
template <class Format>
constexpr sparsekit::Range row_groups_of(sparsekit::Range rows) {
  return {rows.first / Format::height, (rows.last + Format::height - 1) / Format::height};
}

/// A slice of a column block: where its stripes start, and the length and the row of each slot.
template <class Format>
struct Slice {
  const typename Format::Value* values;
  const std::uint8_t* columns;
  const std::uint8_t* row_lengths;
  const std::uint8_t* slot_to_row;  // relative to the sort window
  unsigned stripes;

  static Slice of(const sparsekit::PackedWeight& weight, std::int64_t column_block, std::int64_t slot) {
    const std::int64_t at = weight.length_index(column_block, slot);
    const std::uint32_t* offsets = weight.slice_offsets + at / sparsekit::kSlice;
    const std::int64_t stripe = offsets[0];
    const auto* values = static_cast<const typename Format::Value*>(weight.values);
    return {values + stripe * Format::values, weight.columns + stripe * sparsekit::kStripe, weight.row_lengths + at,
            weight.slot_to_row + weight.order_index(column_block, slot), offsets[1] - offsets[0]};
  }

  /// Whether neighboring rows begin with the same columns. All pairs do or none, so looking at the first is enough.
  bool shares() const {
    return stripes > 0 &&
           __builtin_memcmp(columns + sparsekit::column_place<typename Format::Value>(0),
                            columns + sparsekit::column_place<typename Format::Value>(1), sparsekit::kQuad) == 0;
  }
};

/// Prefetches the share that `slots` slots have in as many values as the slice holds, `kPrefetchDistance` bytes ahead:
/// rows are read with a stride that no hardware prefetcher follows, and all prefetches at once would stall the loads
/// after them. Slots take turns, a cache line each.
template <unsigned slots, class Format>
inline void prefetch_share(const Slice<Format>& slice, unsigned slot) {
  constexpr unsigned kLine = 64;
  constexpr unsigned kTurn = kLine * static_cast<unsigned>(sparsekit::kSlice) / slots;
  constexpr unsigned kBytes = Format::values * sizeof(typename Format::Value);  // of a stripe
  const auto* values = reinterpret_cast<const char*>(slice.values) + kPrefetchDistance;
  const unsigned end = slice.stripes * kBytes;
  for (unsigned at = slot / slots * kLine; at < end; at += kTurn) __builtin_prefetch(values + at);
}

/// The same for the columns of a slice, which are fewer.
template <class Format>
inline void prefetch_columns(const Slice<Format>& slice) {
  constexpr std::int64_t kColumnsAhead =
      kPrefetchDistance / static_cast<std::int64_t>(Format::height * sizeof(typename Format::Value));
  for (unsigned s = 0; s < slice.stripes; ++s) {
    __builtin_prefetch(slice.columns + kColumnsAhead + s * sparsekit::kStripe);
  }
}

/// The stripes of 16 rows where column blocks overlap: those of a column block follow those of the one before.
template <class Format>
struct Stripes {
  const typename Format::Value* values;
  const std::uint8_t* columns;
  const std::uint32_t* slice_offsets;
  unsigned index;

  static Stripes of(const sparsekit::PackedWeight& weight, std::int64_t slot) {
    const std::uint32_t* offsets = weight.slice_offsets + weight.slice_index(0, slot / sparsekit::kSlice);
    const std::size_t first = *offsets;
    return {static_cast<const typename Format::Value*>(weight.values) + first * Format::values,
            weight.columns + first * sparsekit::kStripe, offsets, *offsets};
  }

  void next() {
    values += Format::values;
    columns += sparsekit::kStripe;
    ++index;
  }
};

/// The columns of a quad, from one load.
struct QuadColumns {
  std::uint32_t bytes;

  template <int tile, class Number>
  const Number* input(const Number* inputs, unsigned i) const {
    return inputs + static_cast<std::size_t>(bytes >> (8 * i) & 0xFFU) * static_cast<std::size_t>(tile);
  }
};

/// The entries of one slot of a slice, a quad at a time.
template <class Format>
struct Entries {
  using Value = typename Format::Value;
  const Value* values;
  const std::uint8_t* columns;
  unsigned count;

  Entries(const Slice<Format>& slice, unsigned slot)
      : values(slice.values + sparsekit::value_place<Value>(slot, 0)),
        columns(slice.columns + sparsekit::column_place<Value>(slot)),
        count(slice.row_lengths[slot]) {}

  /// Value `i` of the row group's row `row`.
  const Value* value(unsigned i, int row = 0) const {
    return values + row * sparsekit::kStripe + sparsekit::value_place<Value>(0, i);
  }

  /// The input that entry `i` multiplies, with `tile` numbers an input.
  template <int tile, class Number>
  const Number* input(const Number* inputs, unsigned i) const {
    return inputs + static_cast<std::size_t>(columns[i]) * static_cast<std::size_t>(tile);
  }

  QuadColumns quad_columns() const {
    QuadColumns quad;
    __builtin_memcpy(&quad.bytes, columns, sizeof(quad.bytes));
    asm volatile("" : "+r"(quad.bytes));  // or gcc makes four loads of it again
    return quad;
  }

  /// Goes on to the next quad.
  void next() {
    values += Format::values;
    columns += sparsekit::kStripe;
  }

  /// Takes a quad from the entries that are left.
  void take() {
    count -= sparsekit::kQuad;
    next();
  }
};

}  // namespace
