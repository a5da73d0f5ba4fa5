// Walking the rows of a packed weight in column blocks of CSR (formats/csr_blocks.h).
#pragma once

#include "mask_bytes.h"
#include "packed_weight.h"

namespace {

/// A layout as kernels are compiled for it: the type of a value, the rows of a row group, whether columns are bits.
template <class Stored, int rows, sparsekit::Layout which, bool bits = false>
struct CsrBlocks {
  using Value = Stored;
  static constexpr int height = rows;
  static constexpr bool scaled = sizeof(Stored) == 1;
  static constexpr bool masked = bits;
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
using BitmaskF32 = CsrBlocks<float, 1, sparsekit::Layout::bitmask_f32, true>;
using BitmaskF16 = CsrBlocks<sparsekit::Float16, 1, sparsekit::Layout::bitmask_fp16, true>;
using BitmaskBF16 = CsrBlocks<sparsekit::BFloat16, 1, sparsekit::Layout::bitmask_bf16, true>;
using BitmaskS8 = CsrBlocks<std::int8_t, 1, sparsekit::Layout::bitmask_s8, true>;

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

/// Calls `visit(row group, slot)` for the row groups of a column block, those of a range that starts at a sort window
/// and ends at one or with the last; row groups count from the range's first, slots from the first column block's.
template <class Visit>
[[gnu::always_inline]] inline void for_slots(const sparsekit::PackedWeight& weight, std::int64_t column_block,
                                             sparsekit::Range groups, const Visit& visit) {
  const std::int64_t first = weight.order_index(column_block, groups.first);
  const std::int64_t count = sparsekit::padded_to_slices(groups.last - groups.first);
  const std::uint8_t* slot_to_row = weight.slot_to_row + first;
  for (std::int64_t slot = 0; slot < count; ++slot) {
    visit(sparsekit::sort_window_of(slot) + slot_to_row[slot], first + slot);
  }
}

/// Columns of the bits of a mask, eight at a time: the last eight may be beyond the column block's 256.
inline void unmask(const std::uint8_t* mask, std::uint8_t* columns) {
  constexpr std::uint64_t kEachByte = 0x0101010101010101;
  for (unsigned i = 0; i < sparsekit::kMaskBytes; ++i) {
    const std::uint64_t eight = kMaskBytesTable.columns[mask[i]] + i * 8 * kEachByte;
    __builtin_memcpy(columns, &eight, sizeof eight);
    columns += kMaskBytesTable.bits[mask[i]];
  }
}

/// The same with the entries of the row groups: `visit(row group, entries)`.
template <class Format, class Visit>
[[gnu::always_inline]] inline void for_csr_rows(const sparsekit::PackedWeight& weight, std::int64_t column_block,
                                                sparsekit::Range groups, const Visit& visit) {
  const auto* values = static_cast<const typename Format::Value*>(weight.values);
  [[maybe_unused]] std::uint8_t unmasked[sparsekit::kCsrColumnBlock + 8];
  for_slots(weight, column_block, groups, [&](std::int64_t group, std::int64_t slot) {
    const std::size_t at = weight.slot_offsets[slot];
    CsrRow<Format> row{values + at * Format::height, weight.columns + at,
                       weight.slot_offsets[slot + 1] - static_cast<std::uint32_t>(at)};
    if constexpr (Format::masked) {
      unmask(weight.columns + slot * sparsekit::kMaskBytes, unmasked);
      row.columns = unmasked;
    }
    visit(group, row);
  });
}

}  // namespace
