// Walking the rows of a packed weight in column blocks of CSR (formats/csr_blocks.h).
#pragma once

#include "packed_weight.h"

namespace {

/// A layout as kernels are compiled for it: the type of a value, and the rows of a row group.
template <class Stored, int rows, sparsekit::Layout which>
struct CsrBlocks {
  using Value = Stored;
  static constexpr int height = rows;
  static constexpr bool scaled = sizeof(Stored) == 1;
  static constexpr sparsekit::Layout layout = which;
};

using CsrF32 = CsrBlocks<float, 1, sparsekit::Layout::csr_f32>;
using CsrF16 = CsrBlocks<sparsekit::Float16, 1, sparsekit::Layout::csr_fp16>;
using CsrBF16 = CsrBlocks<sparsekit::BFloat16, 1, sparsekit::Layout::csr_bf16>;
using Csr4x1F32 = CsrBlocks<float, 4, sparsekit::Layout::csr_4x1_f32>;
using Csr4x1F16 = CsrBlocks<sparsekit::Float16, 4, sparsekit::Layout::csr_4x1_fp16>;
using CsrS8 = CsrBlocks<std::int8_t, 1, sparsekit::Layout::csr_s8>;
using Csr4x1S8 = CsrBlocks<std::int8_t, 4, sparsekit::Layout::csr_4x1_s8>;
using Csr4x1BF16 = CsrBlocks<sparsekit::BFloat16, 4, sparsekit::Layout::csr_4x1_bf16>;

/// The entries of a row group in a column block: a column each, and the values of its rows next to each other.
template <class Format>
struct CsrRow {
  using Value = typename Format::Value;
  const Value* values;
  const std::uint8_t* columns;
  unsigned count;

  /// Goes on by `entries` entries.
  void skip(unsigned entries) {
    values += entries * static_cast<unsigned>(Format::height);
    columns += entries;
    count -= entries;
  }
};

/// Calls `visit(row group, entries)` for the row groups of a column block, those of a range that starts at a sort
/// window and ends at one or with the last; row groups count from the range's first.
template <class Format, class Visit>
[[gnu::always_inline]] inline void for_csr_rows(const sparsekit::PackedWeight& weight, std::int64_t column_block,
                                                sparsekit::Range groups, const Visit& visit) {
  const std::int64_t first = weight.order_index(column_block, groups.first);
  const std::int64_t count = sparsekit::padded_to_slices(groups.last - groups.first);
  const std::uint32_t* offsets = weight.slot_offsets + first;
  const std::uint8_t* slot_to_row = weight.slot_to_row + first;
  const auto* values = static_cast<const typename Format::Value*>(weight.values);
  for (std::int64_t slot = 0; slot < count; ++slot) {
    const std::size_t at = offsets[slot];
    const CsrRow<Format> row{values + at * Format::height, weight.columns + at,
                             offsets[slot + 1] - static_cast<std::uint32_t>(at)};
    visit(sparsekit::sort_window_of(slot) + slot_to_row[slot], row);
  }
}

}  // namespace
