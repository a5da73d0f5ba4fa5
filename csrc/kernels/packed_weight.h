// A packed weight as kernels see it: raw pointers, already checked. formats/sell.h and formats/csr_blocks.h describe
// the layouts.
#pragma once

#include <cstdint>

namespace sparsekit {

/// By family, type of the values and shape of the mask's blocks: 1x1 or 4x1.
enum class Layout : std::uint32_t {
  sell_f32 = 1,
  sell_s8 = 2,
  sell_bf16 = 3,
  sell_fp16 = 4,
  sell_4x1_f32 = 5,
  sell_4x1_s8 = 6,
  sell_4x1_bf16 = 7,
  sell_4x1_fp16 = 8,
  csr_f32 = 9,
  csr_bf16 = 10,
  csr_fp16 = 11,
  csr_4x1_f32 = 12,
  csr_4x1_bf16 = 13,
  csr_4x1_fp16 = 14,
  csr_s8 = 15,
  csr_4x1_s8 = 16,
  bitmask_f32 = 17,
  bitmask_bf16 = 18,
  bitmask_fp16 = 19,
  bitmask_s8 = 20,
  dense_f32 = 21,
  dense_bf16 = 22,
  dense_fp16 = 23,
  dense_s8 = 24,
  dense_s4 = 25,
};

/// How rows are stored: SELL-C-sigma (formats/sell.h), one after the other in column blocks, with columns of a byte or
/// of a bit (formats/csr_blocks.h), or with all their zeros (formats/dense.h).
enum class Family : std::uint8_t { sell, csr, bitmask, dense };

/// A float without its last 16 bits.
struct BFloat16 {
  std::uint16_t bits;
};

/// A float of IEEE 754's binary16.
struct Float16 {
  std::uint16_t bits;
};

/// A whole number from -8 to 7, in units of the scale of its group.
struct Int4 {
  std::int8_t code;
};

/// Input features whose int4 values in a row have one scale: a group. 64 nonzeros at 50% sparsity.
inline constexpr std::int64_t kGroup = 128;

/// Groups of a row.
constexpr std::int64_t groups_of(std::int64_t in_features) { return (in_features + kGroup - 1) / kGroup; }

/// Inputs of a column block of SELL: as many as four pairs of AVX-512 registers hold as byte planes.
inline constexpr std::int64_t kColumnBlock = 128;

/// Inputs of a column block of CSR: as many as a byte addresses.
inline constexpr std::int64_t kCsrColumnBlock = 256;

/// A slot of `bitmask_*` has a bit for each of them.
inline constexpr std::int64_t kMaskBytes = kCsrColumnBlock / 8;

/// Inputs from an overlapping column block to the next.
inline constexpr std::int64_t kColumnBlockStep = 64;

/// Rows of a slice (C of SELL-C-sigma), or row groups.
inline constexpr std::int64_t kSlice = 16;

/// Rows that are sorted together (sigma), or row groups. Ranges of rows start at multiples of it, so that they hold the
/// same output features in every column block.
inline constexpr std::int64_t kSortWindow = 64;

/// Entries of a row in a stripe, and of all rows of a slice.
inline constexpr unsigned kQuad = 4;
inline constexpr std::int64_t kStripe = kQuad * kSlice;

/// Column of a padded entry of float values; those of real ones are below 128.
inline constexpr std::uint8_t kPaddingColumn = 0x80;

/// Where the four columns of a slot start in a stripe.
template <class Value>
constexpr unsigned column_place(unsigned slot) {
  return sizeof(Value) == 1 ? slot * kQuad : slot % 4 * 16 + slot / 4 * kQuad;
}

/// Where entry `i` of a slot has its value, among those of one output feature in a stripe. The slots 0 to 3 and 4 to 7
/// of BFloat16 take turns, so that masks and shifts make floats of 32 bits: those of 4 to 7 are the upper halves.
template <class Value>
constexpr unsigned value_place(unsigned slot, unsigned i) {
  return slot * kQuad + i;
}
template <>
constexpr unsigned value_place<BFloat16>(unsigned slot, unsigned i) {
  return slot / 8 * 32 + (slot % 4 * kQuad + i) * 2 + slot / 4 % 2;
}

/// First slot, and first row group, of the sort window around a slot.
constexpr std::int64_t sort_window_of(std::int64_t slot) { return slot / kSortWindow * kSortWindow; }

/// `row_groups` rounded up to whole slices.
constexpr std::int64_t padded_to_slices(std::int64_t row_groups) { return (row_groups + kSlice - 1) / kSlice * kSlice; }

/// Row groups of `height` output features each, rounded up to whole slices, for `rows` output features.
constexpr std::int64_t padded_row_groups(std::int64_t rows, std::int64_t height) {
  return padded_to_slices((rows + height - 1) / height);
}

/// Which slices a packed weight has and where they are: by column block and then by slice, or the other way round where
/// column blocks overlap.
struct PackedShape {
  std::int64_t column_blocks;
  std::int64_t slices;  // of a column block
  bool overlapping;     // column blocks, with one order of rows for all of them
  Family family;
  std::int64_t width;  // input features of a column block

  /// Whether the rows of a slice lie side by side.
  bool sliced() const { return family == Family::sell; }

  /// First input feature of a column block.
  std::int64_t first_column(std::int64_t column_block) const {
    return column_block * (overlapping ? kColumnBlockStep : width);
  }

  /// Input features of a token, rounded up to whole column blocks.
  std::int64_t padded_features() const { return first_column(column_blocks - 1) + width; }

  /// Values of a dense weight, with padding.
  std::int64_t dense_values() const { return slices * kSlice * padded_features(); }

  /// Where `slice_offsets` of a slice is.
  std::int64_t slice_index(std::int64_t column_block, std::int64_t slice) const {
    return overlapping ? slice * column_blocks + column_block : column_block * slices + slice;
  }

  /// Where `row_lengths` of a slot is.
  std::int64_t length_index(std::int64_t column_block, std::int64_t slot) const {
    return slice_index(column_block, slot / kSlice) * kSlice + slot % kSlice;
  }

  /// Where `slot_to_row` of a slot and `row_to_slot` of a row group are.
  std::int64_t order_index(std::int64_t column_block, std::int64_t slot) const {
    return overlapping ? slot : column_block * slices * kSlice + slot;
  }
};

/// Arrays over slots hold one number for a row group, which has `height` rows (output features).
struct PackedWeight : PackedShape {
  const void* values;
  const std::uint8_t* columns;         // relative to the first input feature of the column block, or masks
  const std::uint32_t* slice_offsets;  // of SELL: first stripe of a slice
  const std::uint32_t* slot_offsets;   // of others: first entry of a slot, at `order_index`
  const std::uint8_t* row_lengths;     // of SELL
  const std::uint8_t* slot_to_row;
  const std::uint8_t* row_to_slot;
  const float* scales;           // of int8 values: [out_features]
  const Float16* group_scales;   // of int4 values: [slices, groups, 16 rows]
  const std::int32_t* row_sums;  // of int8 values in SELL: [out_features], the sum of a row's values
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t height;
};

}  // namespace sparsekit
