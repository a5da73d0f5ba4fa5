#include "packed.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "quads.h"

namespace sparsekit {
namespace {

constexpr std::uint64_t kMagic = 0x54494B4553524150;
constexpr std::uint32_t kVersion = 7;

template <class Value, int height>
constexpr LayoutEntry quads(Layout layout, const char* name, const char* values) {
  constexpr bool scaled = sizeof(Value) == 1;
  constexpr std::uint8_t padding = scaled ? 0 : kPadding;
  constexpr std::int64_t sixths = (scaled ? 2 : 6) * (height > 1 ? 2 : 1);
  return {layout,
          name,
          values,
          height,
          sizeof(Value),
          scaled,
          scaled,
          kPaired<Value, height>,
          padding,
          sixths,
          fill_quads<Value, height>,
          unpack_quads<Value, height>};
}

/// The one list of layouts.
constexpr LayoutEntry kLayouts[] = {
    quads<float, 1>(Layout::quads_f32, "quads_f32", "float32"),
    quads<std::int8_t, 1>(Layout::quads_s8, "quads_s8", "int8"),
    quads<BFloat16, 1>(Layout::quads_bf16, "quads_bf16", "bfloat16"),
    quads<Float16, 1>(Layout::quads_fp16, "quads_fp16", "float16"),
    quads<float, 4>(Layout::quads_4x1_f32, "quads_4x1_f32", "float32"),
    quads<std::int8_t, 4>(Layout::quads_4x1_s8, "quads_4x1_s8", "int8"),
    quads<BFloat16, 4>(Layout::quads_4x1_bf16, "quads_4x1_bf16", "bfloat16"),
    quads<Float16, 4>(Layout::quads_4x1_fp16, "quads_4x1_fp16", "float16"),
};

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

const LayoutEntry& layout_entry(Layout layout) {
  for (const auto& entry : kLayouts) {
    if (layout == entry.layout) return entry;
  }
  throw std::invalid_argument("unknown layout " + std::to_string(static_cast<std::uint32_t>(layout)));
}

Cells cells_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t step = layout.sliding ? kSlide : kBlockWidth;
  const std::int64_t more = std::max<std::int64_t>(0, in_features - kBlockWidth);
  return {1 + (more + step - 1) / step, lanes_for(out_features, layout.height) / kLanes, layout.sliding};
}

Layout layout_for(const std::string& values, std::int64_t height) {
  for (const auto& entry : kLayouts) {
    if (values == entry.values && height == entry.height) return entry.layout;
  }
  throw std::invalid_argument("no layout has " + values + " values in blocks of " + std::to_string(height) + "x1");
}

namespace {

/// Header of a weight of this layout, shape and number of entries: everything else follows from them.
PackedHeader header_for(const LayoutEntry& layout, std::int64_t out_features, std::int64_t in_features,
                        std::int64_t nnz, std::int64_t entries) {
  PackedHeader header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.layout = layout.layout;
  header.out_features = out_features;
  header.in_features = in_features;
  header.nnz = nnz;
  header.entries = entries;
  const Cells all = cells_for(layout, out_features, in_features);
  header.blocks = all.blocks;
  const auto cells = static_cast<std::uint64_t>(all.blocks * all.tiles);
  const auto ordered = static_cast<std::uint64_t>((all.sliding ? 1 : all.blocks) * all.tiles * kLanes);
  header.starts_offset = sizeof(PackedHeader);
  header.counts_offset = aligned(header.starts_offset + (cells + 1) * sizeof(std::uint32_t));
  header.lanes_offset = aligned(header.counts_offset + cells * static_cast<std::uint64_t>(kLanes));
  header.positions_offset = aligned(header.lanes_offset + ordered);
  const std::uint64_t rows = layout.scaled ? static_cast<std::uint64_t>(out_features) : 0;
  header.scales_offset = aligned(header.positions_offset + ordered);
  header.totals_offset = aligned(header.scales_offset + rows * sizeof(float));
  header.values_offset = aligned(header.totals_offset + rows * sizeof(std::int32_t));
  header.columns_offset =
      aligned(header.values_offset + static_cast<std::uint64_t>(entries * layout.height * layout.value_bytes));
  header.total_bytes = aligned(header.columns_offset + static_cast<std::uint64_t>(entries));
  return header;
}

}  // namespace

PackPlan plan_pack(const CsrView& csr, Layout wanted, const float* scales) {
  const LayoutEntry& layout = layout_entry(wanted);
  PackPlan plan;
  if (layout.scaled) plan.scales.assign(scales, scales + csr.out_features);
  plan_quads(csr, layout, plan);
  const std::int64_t entries = std::int64_t{plan.starts.back()} * kGroup;
  plan.header = header_for(layout, csr.out_features, csr.in_features, csr.values_size, entries);
  return plan;
}

void write_packed(const CsrView& csr, const PackPlan& plan, std::byte* buffer) {
  const PackedHeader& header = plan.header;
  std::memset(buffer, 0, header.total_bytes);
  std::memcpy(buffer, &header, sizeof header);
  const auto copy = [&](const auto& from, std::uint64_t offset) {
    std::copy_n(reinterpret_cast<const std::byte*>(from.data()), from.size() * sizeof(from[0]), buffer + offset);
  };
  copy(plan.starts, header.starts_offset);
  copy(plan.counts, header.counts_offset);
  copy(plan.lanes, header.lanes_offset);
  copy(plan.positions, header.positions_offset);
  copy(plan.scales, header.scales_offset);
  copy(plan.totals, header.totals_offset);
  const LayoutEntry& layout = layout_entry(header.layout);
  std::memset(buffer + header.columns_offset, layout.padding, static_cast<std::size_t>(header.entries));
  layout.fill(csr, plan, buffer + header.values_offset,
              reinterpret_cast<std::uint8_t*>(buffer + header.columns_offset));
}

namespace {

/// Whether a buffer of so many bytes has room for what its header counts; if not, computing offsets could overflow.
bool has_room(const PackedHeader& header, const LayoutEntry& layout, std::size_t bytes) {
  const auto most = static_cast<std::int64_t>(bytes);
  return header.out_features / layout.height <= most && header.entries >= 0 && header.entries <= most &&
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
  return {cells_for(layout, header.out_features, header.in_features),
          base + header.values_offset,
          reinterpret_cast<const std::uint8_t*>(base + header.columns_offset),
          reinterpret_cast<const std::uint32_t*>(base + header.starts_offset),
          reinterpret_cast<const std::uint8_t*>(base + header.counts_offset),
          reinterpret_cast<const std::uint8_t*>(base + header.lanes_offset),
          reinterpret_cast<const std::uint8_t*>(base + header.positions_offset),
          reinterpret_cast<const float*>(base + header.scales_offset),
          reinterpret_cast<const std::int32_t*>(base + header.totals_offset),
          header.out_features,
          header.in_features,
          layout.height};
}

}  // namespace sparsekit
