#include "packed.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "csr_blocks.h"
#include "dense.h"
#include "dense_int4.h"
#include "row_groups.h"
#include "row_sums.h"
#include "sell.h"

namespace sparsekit {
namespace {

constexpr std::uint64_t kMagic = 0x54494B4553524150;
constexpr std::uint32_t kVersion = 8;

template <class Value, int height>
constexpr LayoutEntry sell(Layout layout, const char* name) {
  constexpr bool scaled = sizeof(Value) == 1;
  constexpr std::uint8_t padding = scaled ? 0 : kPaddingColumn;
  constexpr std::int64_t sixths = (scaled ? 3 : 6) * (height > 1 ? 2 : 1);
  return {layout,
          name,
          kDType<Value>,
          height,
          sizeof(Value),
          scaled,
          scaled,
          scaled,
          kPairsRows<Value, height>,
          Family::sell,
          padding,
          sixths,
          fill_sell<Value, height>,
          unpack_sell<Value, height>};
}

template <class Value, int height, Family family = Family::csr>
constexpr LayoutEntry csr_blocks(Layout layout, const char* name) {
  return {layout,
          name,
          kDType<Value>,
          height,
          sizeof(Value),
          sizeof(Value) == 1,
          false,
          false,
          false,
          family,
          0,
          6 * (height > 1 ? 2 : 1),
          fill_csr_blocks<Value, height, family>,
          unpack_csr_blocks<Value, height, family>};
}

template <class Value>
constexpr LayoutEntry dense(Layout layout, const char* name) {
  constexpr bool scaled = sizeof(Value) == 1;
  return {layout,
          name,
          kDType<Value>,
          1,
          sizeof(Value),
          scaled,
          scaled,
          false,
          false,
          Family::dense,
          0,
          scaled ? 1 : 2,
          fill_dense<Value>,
          unpack_dense<Value>};
}

constexpr LayoutEntry dense_int4() {
  return {.layout = Layout::dense_s4,
          .name = "dense_s4",
          .dtype = DType::int4,
          .height = 1,
          .value_bytes = 1,
          .scaled = true,
          .quantizes = false,
          .overlapping = false,
          .paired = false,
          .family = Family::dense,
          .padding = 0,
          .sixths = 1,
          .fill = fill_dense_int4,
          .unpack = unpack_dense_int4};
}

/// The list of layouts.
constexpr LayoutEntry kLayouts[] = {
    sell<float, 1>(Layout::sell_f32, "sell_f32"),
    sell<std::int8_t, 1>(Layout::sell_s8, "sell_s8"),
    sell<BFloat16, 1>(Layout::sell_bf16, "sell_bf16"),
    sell<Float16, 1>(Layout::sell_fp16, "sell_fp16"),
    sell<float, 4>(Layout::sell_4x1_f32, "sell_4x1_f32"),
    sell<std::int8_t, 4>(Layout::sell_4x1_s8, "sell_4x1_s8"),
    sell<BFloat16, 4>(Layout::sell_4x1_bf16, "sell_4x1_bf16"),
    sell<Float16, 4>(Layout::sell_4x1_fp16, "sell_4x1_fp16"),
    csr_blocks<float, 1>(Layout::csr_f32, "csr_f32"),
    csr_blocks<BFloat16, 1>(Layout::csr_bf16, "csr_bf16"),
    csr_blocks<Float16, 1>(Layout::csr_fp16, "csr_fp16"),
    csr_blocks<float, 4>(Layout::csr_4x1_f32, "csr_4x1_f32"),
    csr_blocks<BFloat16, 4>(Layout::csr_4x1_bf16, "csr_4x1_bf16"),
    csr_blocks<Float16, 4>(Layout::csr_4x1_fp16, "csr_4x1_fp16"),
    csr_blocks<std::int8_t, 1>(Layout::csr_s8, "csr_s8"),
    csr_blocks<std::int8_t, 4>(Layout::csr_4x1_s8, "csr_4x1_s8"),
    csr_blocks<float, 1, Family::bitmask>(Layout::bitmask_f32, "bitmask_f32"),
    csr_blocks<BFloat16, 1, Family::bitmask>(Layout::bitmask_bf16, "bitmask_bf16"),
    csr_blocks<Float16, 1, Family::bitmask>(Layout::bitmask_fp16, "bitmask_fp16"),
    csr_blocks<std::int8_t, 1, Family::bitmask>(Layout::bitmask_s8, "bitmask_s8"),
    dense<float>(Layout::dense_f32, "dense_f32"),
    dense<BFloat16>(Layout::dense_bf16, "dense_bf16"),
    dense<Float16>(Layout::dense_fp16, "dense_fp16"),
    dense<std::int8_t>(Layout::dense_s8, "dense_s8"),
    dense_int4(),
};

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

std::span<const LayoutEntry> layout_entries() { return kLayouts; }

const LayoutEntry& layout_entry(Layout layout) {
  for (const auto& entry : kLayouts) {
    if (layout == entry.layout) return entry;
  }
  throw std::invalid_argument("unknown layout " + std::to_string(static_cast<std::uint32_t>(layout)));
}

namespace {

/// Input features of a column block; for dense weights, those that kernels multiply together.
std::int64_t block_width(const LayoutEntry& layout) {
  if (layout.family == Family::dense) return layout.grouped() ? 2 * kQuad : kQuad;
  return layout.family == Family::sell ? kColumnBlock : kCsrColumnBlock;
}

}  // namespace

PackedShape shape_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features) {
  PackedShape shape{0, padded_row_groups(out_features, layout.height) / kSlice, layout.overlapping, layout.family,
                    block_width(layout)};
  const std::int64_t step = shape.first_column(1);
  const std::int64_t more = std::max<std::int64_t>(0, in_features - shape.width);
  shape.column_blocks = 1 + (more + step - 1) / step;
  return shape;
}

namespace {

constexpr const char* kFamilyNames[] = {"sell", "csr", "bitmask", "dense"};  // in the order of `Family`

}  // namespace

Family family_named(const std::string& name) {
  const auto* found = std::find(std::begin(kFamilyNames), std::end(kFamilyNames), name);
  if (found != std::end(kFamilyNames)) return static_cast<Family>(found - std::begin(kFamilyNames));
  std::string names;
  for (const char* known : kFamilyNames) names += (names.empty() ? "'" : ", '") + std::string(known) + "'";
  throw std::invalid_argument("layout must be one of " + names + ", got '" + name + "'");
}

const char* family_name(Family family) { return kFamilyNames[static_cast<std::size_t>(family)]; }

Layout layout_for(DType dtype, std::int64_t height, Family family) {
  if (height > 1 && family == Family::bitmask) family = Family::csr;
  for (const auto& entry : kLayouts) {
    if (dtype == entry.dtype && height == entry.height && family == entry.family) return entry.layout;
  }
  throw std::invalid_argument("no layout has " + std::string(dtype_entry(dtype).name) + " values in blocks of " +
                              std::to_string(height) + "x1");
}

namespace {

std::int64_t value_bytes(const LayoutEntry& layout, std::int64_t entries) {
  return entries * layout.height * layout.value_bytes / (layout.grouped() ? 2 : 1);
}

std::uint64_t scale_bytes(const LayoutEntry& layout, const PackedHeader& header, const PackedShape& shape) {
  if (!layout.scaled) return 0;
  if (!layout.grouped()) return static_cast<std::uint64_t>(header.out_features) * sizeof(float);
  return static_cast<std::uint64_t>(shape.slices * kSlice * groups_of(header.in_features)) * sizeof(Float16);
}

std::uint64_t column_bytes(const LayoutEntry& layout, std::uint64_t slots, std::int64_t entries) {
  if (layout.family == Family::dense) return 0;
  return layout.family == Family::bitmask ? slots * static_cast<std::uint64_t>(kMaskBytes)
                                          : static_cast<std::uint64_t>(entries);
}

/// Header of a weight, from its layout, shape and number of entries, which determine the rest.
PackedHeader header_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features,
                        std::int64_t nnz, std::int64_t entries) {
  PackedHeader header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.layout = layout.layout;
  header.out_features = out_features;
  header.in_features = in_features;
  header.nnz = nnz;
  const PackedShape shape = shape_for(layout, out_features, in_features);
  const bool dense = layout.family == Family::dense;
  header.entries = dense ? shape.dense_values() : entries;
  header.column_blocks = shape.column_blocks;
  const auto slices = dense ? 0 : static_cast<std::uint64_t>(shape.column_blocks * shape.slices);
  const std::uint64_t slots = slices * static_cast<std::uint64_t>(kSlice);
  const std::uint64_t ordered =
      dense ? 0 : static_cast<std::uint64_t>((shape.overlapping ? 1 : shape.column_blocks) * shape.slices * kSlice);
  header.slice_offsets_start = sizeof(PackedHeader);
  header.row_lengths_start =
      aligned(header.slice_offsets_start + ((shape.sliced() ? slices : slots) + 1) * sizeof(std::uint32_t));
  header.slot_to_row_start = aligned(header.row_lengths_start + (shape.sliced() ? slots : 0));
  header.row_to_slot_start = aligned(header.slot_to_row_start + ordered);
  const std::uint64_t rows = layout.quantizes ? static_cast<std::uint64_t>(out_features) : 0;
  header.scales_start = aligned(header.row_to_slot_start + ordered);
  header.row_sums_start = aligned(header.scales_start + scale_bytes(layout, header, shape));
  header.values_start = aligned(header.row_sums_start + rows * sizeof(std::int32_t));
  header.columns_start = aligned(header.values_start + static_cast<std::uint64_t>(value_bytes(layout, header.entries)));
  header.total_bytes = aligned(header.columns_start + column_bytes(layout, slots, header.entries));
  return header;
}

}  // namespace

namespace {

/// Row order and entry offsets, which dense weights do not need.
void plan_slots(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan) {
  if (layout.family == Family::sell) return plan_sell(csr, layout, plan);
  if (layout.grouped()) return plan_dense_int4(csr, layout, plan);
  if (layout.family == Family::dense) return plan.slice_offsets.assign(1, 0);
  plan_csr_blocks(csr, layout, plan);
}

}  // namespace

PackPlan plan_pack(const CsrView& csr, Layout wanted, const float* scales) {
  const LayoutEntry& layout = layout_entry(wanted);
  PackPlan plan;
  if (csr.dtype == layout.dtype) scales = csr.scales == nullptr ? scales : csr.scales;
  const std::int64_t row_scales = layout.grouped() ? groups_of(csr.in_features) : 1;
  if (layout.scaled) plan.scales.assign(scales, scales + csr.out_features * row_scales);
  // Every SELL stripe has a nonzero, so this also bounds the number of stripes.
  if (csr.values_size > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 nonzeros, got " +
                                std::to_string(csr.values_size));
  }
  check_row_groups(csr, layout.height);
  if (layout.scaled) check_scaled_rows(csr, plan.scales, layout.dtype);
  if (layout.quantizes) plan.row_sums = row_sums_of(csr, plan.scales);
  plan_slots(csr, layout, plan);
  const std::int64_t entries = std::int64_t{plan.slice_offsets.back()} * (layout.family == Family::sell ? kStripe : 1);
  const std::int64_t nnz = layout.grouped() ? int4_nonzeros(csr, plan.scales) : csr.values_size;
  plan.header = header_for(layout, csr.out_features, csr.in_features, nnz, entries);
  return plan;
}

void write_packed(const CsrView& csr, const PackPlan& plan, std::byte* buffer) {
  const PackedHeader& header = plan.header;
  std::memset(buffer, 0, header.total_bytes);
  std::memcpy(buffer, &header, sizeof header);
  const auto copy = [&](const auto& from, std::uint64_t offset) {
    std::copy_n(reinterpret_cast<const std::byte*>(from.data()), from.size() * sizeof(from[0]), buffer + offset);
  };
  copy(plan.slice_offsets, header.slice_offsets_start);
  copy(plan.row_lengths, header.row_lengths_start);
  copy(plan.slot_to_row, header.slot_to_row_start);
  copy(plan.row_to_slot, header.row_to_slot_start);
  const LayoutEntry& layout = layout_entry(header.layout);
  if (layout.grouped()) {
    copy(plan.group_scales, header.scales_start);
  } else {
    copy(plan.scales, header.scales_start);
  }
  copy(plan.row_sums, header.row_sums_start);
  if (layout.family == Family::sell) {
    std::memset(buffer + header.columns_start, layout.padding, static_cast<std::size_t>(header.entries));
  }
  layout.fill(csr, plan, buffer + header.values_start, reinterpret_cast<std::uint8_t*>(buffer + header.columns_start));
}

namespace {

/// Whether a buffer of this size can hold the header's counts; if not, computing offsets could overflow.
bool has_room(const PackedHeader& header, const LayoutEntry& layout, std::size_t bytes) {
  const auto most = static_cast<std::int64_t>(bytes) * (layout.grouped() ? 2 : 1);
  const bool fits = layout.family != Family::dense || header.out_features * header.in_features <= most;
  return fits && header.out_features / layout.height <= most && header.entries >= 0 && header.entries <= most &&
         header.nnz >= 0 && header.nnz <= header.entries * layout.height;
}

}  // namespace

const PackedHeader& packed_header(const std::byte* buffer, std::size_t bytes) {
  if (bytes < sizeof(PackedHeader)) {
    throw std::invalid_argument("a packed weight has at least " + std::to_string(sizeof(PackedHeader)) +
                                " bytes, got " + std::to_string(bytes) + "; pack a CSR with CSR.pack()");
  }
  if (reinterpret_cast<std::uintptr_t>(buffer) % alignof(PackedHeader) != 0) {
    throw std::invalid_argument("a packed weight must lie at a multiple of 8 bytes; copy it to an array of its own");
  }
  const auto& header = *reinterpret_cast<const PackedHeader*>(buffer);
  if (header.magic != kMagic || header.version != kVersion) {
    throw std::invalid_argument("not a packed weight of this version; pack a CSR with CSR.pack()");
  }
  if (header.total_bytes != bytes) {
    throw std::invalid_argument("the packed weight says it has " + std::to_string(header.total_bytes) + " bytes, got " +
                                std::to_string(bytes));
  }
  checked_size(header.out_features, header.in_features);
  const LayoutEntry& layout = layout_entry(header.layout);
  PackedHeader expected{};
  if (has_room(header, layout, bytes)) {
    expected = header_for(layout, header.out_features, header.in_features, header.nnz, header.entries);
  }
  if (std::memcmp(&header, &expected, sizeof header) != 0) {
    throw std::invalid_argument("the packed weight's header contradicts itself; pack a CSR with CSR.pack()");
  }
  return header;
}

PackedWeight packed_view(const PackedHeader& header) {
  const auto* base = reinterpret_cast<const std::byte*>(&header);
  const LayoutEntry& layout = layout_entry(header.layout);
  return {shape_for(layout, header.out_features, header.in_features),
          base + header.values_start,
          reinterpret_cast<const std::uint8_t*>(base + header.columns_start),
          reinterpret_cast<const std::uint32_t*>(base + header.slice_offsets_start),
          reinterpret_cast<const std::uint32_t*>(base + header.slice_offsets_start),
          reinterpret_cast<const std::uint8_t*>(base + header.row_lengths_start),
          reinterpret_cast<const std::uint8_t*>(base + header.slot_to_row_start),
          reinterpret_cast<const std::uint8_t*>(base + header.row_to_slot_start),
          reinterpret_cast<const float*>(base + header.scales_start),
          reinterpret_cast<const Float16*>(base + header.scales_start),
          reinterpret_cast<const std::int32_t*>(base + header.row_sums_start),
          header.out_features,
          header.in_features,
          layout.height};
}

}  // namespace sparsekit
