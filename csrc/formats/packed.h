// A packed weight: one buffer that describes itself, so that it can live in a torch tensor, a numpy array or shared
// memory, and be copied byte for byte.
//
//   [ header, 128 bytes | starts | counts | lanes | positions | scales | totals | values | columns ]
//
// Each part begins at a multiple of 64 bytes, and so does the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../kernels/views.h"
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
  std::int64_t blocks;
  std::uint64_t starts_offset;  // bytes from the start of the buffer, as the next five
  std::uint64_t counts_offset;
  std::uint64_t lanes_offset;
  std::uint64_t positions_offset;
  std::uint64_t values_offset;
  std::uint64_t columns_offset;
  std::uint64_t total_bytes;
  std::uint64_t scales_offset;
  std::uint64_t totals_offset;
};
static_assert(sizeof(PackedHeader) == 128);

/// Where everything goes in a packed weight, computed before its buffer is allocated. The arrays are named and ordered
/// as in `PackedWeight`.
struct PackPlan {
  PackedHeader header;
  std::vector<std::uint32_t> starts;
  std::vector<std::uint8_t> counts;
  std::vector<std::uint8_t> lanes;
  std::vector<std::uint8_t> positions;
  std::vector<float> scales;
  std::vector<std::int32_t> totals;
};

/// Everything that differs between layouts; the rows are in packed.cpp.
struct LayoutEntry {
  Layout layout;
  const char* name;          // as in `Layout`
  const char* values;        // their type
  std::int64_t height;       // output features of a lane
  std::int64_t value_bytes;  // of one value
  bool scaled;               // whether output features have `scales` and `totals`
  bool sliding;              // whether its blocks slide, with one order of lanes
  bool paired;               // whether neighbouring lanes begin with the columns that they share
  std::uint8_t padding;      // column of a padded entry
  std::int64_t sixths;       // of the time that an entry of `quads_f32` takes, roughly
  /// Writes the nonzeros to `values` and `columns`, which hold nothing but padding.
  void (*fill)(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
  /// Back to CSR, columns sorted. `nnz` is known from the header.
  CsrArrays (*unpack)(const PackedWeight& weight, std::int64_t nnz);
};

/// The cells of a weight of this shape. One block even without input features, so that kernels write their sums.
Cells cells_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features);

/// Throws std::invalid_argument for an unknown layout.
const LayoutEntry& layout_entry(Layout layout);

/// The layout with these values and output features a lane; throws std::invalid_argument when there is none.
Layout layout_for(const std::string& values, std::int64_t height);

/// `scales`: of the output features, [out_features], positive, for a layout that has them; else null. Throws
/// std::invalid_argument when the layout cannot hold the weight: 2^32 nonzeros or more; in lanes of several output
/// features, where these have entries in different columns; with scales also values that are not finite, or rows so
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
