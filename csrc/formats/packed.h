// A packed weight: one buffer that describes itself, so that it can live in a torch tensor, a numpy array or shared
// memory, and be copied byte for byte.
//
//   [ header, 128 bytes | slice_offsets | row_lengths | slot_to_row | row_to_slot | scales or group_scales | row_sums |
//   values | columns ]
//
// Each part begins at a multiple of 64 bytes, and so does the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "../kernels/packed_weight.h"
#include "csr.h"

namespace sparsekit {

struct PackedHeader {
  std::uint64_t magic;
  std::uint32_t version;
  Layout layout;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t nnz;
  std::int64_t entries;  // columns, with padding
  std::int64_t column_blocks;
  std::uint64_t slice_offsets_start;  // bytes from the start of the buffer, as the next ones
  std::uint64_t row_lengths_start;
  std::uint64_t slot_to_row_start;
  std::uint64_t row_to_slot_start;
  std::uint64_t values_start;
  std::uint64_t columns_start;
  std::uint64_t total_bytes;
  std::uint64_t scales_start;
  std::uint64_t row_sums_start;
};
static_assert(sizeof(PackedHeader) == 128);

/// Layout plan of a packed weight, computed before its buffer is allocated. Arrays are named and ordered as in
/// `PackedWeight`.
struct PackPlan {
  PackedHeader header;
  std::vector<std::uint32_t> slice_offsets;  // or `slot_offsets`
  std::vector<std::uint8_t> row_lengths;
  std::vector<std::uint8_t> slot_to_row;
  std::vector<std::uint8_t> row_to_slot;
  std::vector<float> scales;  // of int4 values as CSR has them
  std::vector<Float16> group_scales;
  std::vector<std::int32_t> row_sums;
};

/// Properties of a layout; the table is in packed.cpp.
struct LayoutEntry {
  Layout layout;
  const char* name;          // as in `Layout`
  DType dtype;               // of its values
  std::int64_t height;       // rows of a row group
  std::int64_t value_bytes;  // of one value; of two int4
  bool scaled;               // whether values are in units of scales
  bool quantizes;            // inputs too: whether output features have `row_sums`
  bool overlapping;          // whether its column blocks overlap, with one order of rows
  bool paired;               // whether neighboring rows begin with the columns that they share
  Family family;
  std::uint8_t padding;  // column of a padded entry
  std::int64_t sixths;   // of the time that an entry of `sell_f32` takes, roughly
  /// Writes the nonzeros to `values` and `columns`, which hold nothing but padding.
  void (*fill)(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
  /// Back to CSR, columns sorted, values as they are. `nnz` is known from the header.
  AnyCsrArrays (*unpack)(const PackedWeight& weight, std::int64_t nnz);

  /// Whether every group of a row has a scale.
  bool grouped() const { return dtype == DType::int4; }

  /// Whether kernels compute the gradient for the input.
  bool has_gradient() const { return !scaled && family != Family::dense; }
};

/// The slices of a weight of this shape. One column block even without input features, so that kernels write their
/// sums.
PackedShape shape_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features);

/// All layouts.
std::span<const LayoutEntry> layout_entries();

/// Throws std::invalid_argument for an unknown layout.
const LayoutEntry& layout_entry(Layout layout);

/// "sell", "csr" or "bitmask"; throws std::invalid_argument for another name.
Family family_named(const std::string& name);
const char* family_name(Family family);

/// The layout with values of this type and rows of a row group; blocks of several rows, which share their columns, are
/// not stored as bitmasks but as CSR. Throws std::invalid_argument when there is none.
Layout layout_for(DType dtype, std::int64_t height, Family family);

/// The values of `csr` are of the layout's type or float32. `scales`: positive, [out_features] or, of groups,
/// [out_features, groups], for float32 values in a layout that has them; else null. Throws
/// std::invalid_argument when the layout cannot hold the weight: 2^32 nonzeros or more; in row groups of several
/// rows, where these have entries in different columns; with scales also values that are not finite, or rows so
/// long that their sums could leave 32 bits.
PackPlan plan_pack(const CsrView& csr, Layout layout, const float* scales = nullptr);

/// Writes every byte of `buffer`, which has `plan.header.total_bytes` bytes and is aligned to at least 8. Throws
/// std::invalid_argument for values beyond the range of Float16 where the layout holds these.
void write_packed(const CsrView& csr, const PackPlan& plan, std::byte* buffer);

/// The header of a buffer that `write_packed` wrote. Throws std::invalid_argument when the buffer is too short, has
/// another magic number or version, or its sizes and offsets do not follow from its layout and shape. The arrays behind
/// it are trusted: `check_packed` looks at them once, where a packed weight comes from outside.
const PackedHeader& packed_header(const std::byte* buffer, std::size_t bytes);

/// The kernel's view of a packed buffer that starts with this header.
PackedWeight packed_view(const PackedHeader& header);

}  // namespace sparsekit
