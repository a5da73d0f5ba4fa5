#include "check_packed.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>

#include "check_dense.h"
#include "damaged.h"
#include "dense_int4.h"
#include "packed.h"
#include "sell.h"

namespace sparsekit {
namespace {

std::string text(std::int64_t n) { return std::to_string(n); }

/// Slices are contiguous and end with the last entry.
void check_slice_offsets(const PackedWeight& weight, std::int64_t entries) {
  const std::int64_t slices = weight.column_blocks * weight.slices;
  if (weight.slice_offsets[0] != 0) refuse_packed("its slices must start at 0, got " + text(weight.slice_offsets[0]));
  for (std::int64_t s = 0; s < slices; ++s) {
    if (weight.slice_offsets[s + 1] < weight.slice_offsets[s]) {
      refuse_packed("its slices must not overlap, but slice " + text(s) + " does");
    }
  }
  if (weight.slice_offsets[slices] * kStripe != entries) {
    refuse_packed("its slices must have " + text(entries) + " entries, got " +
                  text(weight.slice_offsets[slices] * kStripe));
  }
}

/// The same of the slots of CSR, whose entries have no padding between them.
void check_slot_offsets(const PackedWeight& weight, std::int64_t entries) {
  const std::int64_t slots = weight.column_blocks * weight.slices * kSlice;
  if (weight.slot_offsets[0] != 0) refuse_packed("its slots must start at 0, got " + text(weight.slot_offsets[0]));
  for (std::int64_t s = 0; s < slots; ++s) {
    if (weight.slot_offsets[s + 1] < weight.slot_offsets[s]) {
      refuse_packed("its slots must not overlap, but slot " + text(s) + " does");
    }
  }
  if (weight.slot_offsets[slots] != entries) {
    refuse_packed("its slots must have " + text(entries) + " entries, got " + text(weight.slot_offsets[slots]));
  }
}

/// Slots and rows of every sort window are permutations of each other.
void check_order(const PackedWeight& weight) {
  const std::int64_t slots = weight.slices * kSlice;
  for (std::int64_t b = 0; b < (weight.overlapping ? 1 : weight.column_blocks); ++b) {
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      const std::int64_t size = std::min(kSortWindow, slots - sort_window_of(slot));
      const std::int64_t row = weight.slot_to_row[weight.order_index(b, slot)];
      const std::int64_t window = weight.order_index(b, sort_window_of(slot));
      if (row >= size || weight.row_to_slot[window + row] != slot - sort_window_of(slot)) {
        refuse_packed("slot " + text(slot) + " of column block " + text(b) + " has no row of its own");
      }
    }
  }
}

/// Columns of each slot, real and padded.
struct Columns {
  unsigned place[static_cast<std::size_t>(kSlice)];
  std::uint8_t padding;

  explicit Columns(const LayoutEntry& layout) : place{}, padding(layout.padding) {
    for (unsigned s = 0; s < kSlice; ++s) {
      place[s] = layout.value_bytes == 1 ? column_place<std::int8_t>(s) : column_place<float>(s);
    }
  }

  /// Whether the first `count` columns of a slot are below `width`, and the rest of its stripes is padding.
  bool good(const std::uint8_t* slot, std::int64_t count, std::int64_t stripes, std::int64_t width) const {
    bool wrong = false;
    for (std::int64_t i = 0; i < stripes * kQuad; ++i) {
      const std::uint8_t column = slot[i / kQuad * kStripe + i % kQuad];
      wrong |= i < count ? column >= width : column != padding;
    }
    return !wrong;
  }
};

/// Input features that a column block has.
std::int64_t block_width(const PackedWeight& weight, std::int64_t column_block) {
  return std::min(weight.width, weight.in_features - weight.first_column(column_block));
}

bool all_below(const std::uint8_t* columns, std::int64_t count, std::int64_t width) {
  std::uint8_t most = 0;
  for (std::int64_t i = 0; i < count; ++i) most = std::max(most, columns[i]);
  return count == 0 || most < width;
}

/// Output features that the row group at a slot of a column block has.
std::int64_t rows_at(const PackedWeight& weight, std::int64_t column_block, std::int64_t slot) {
  const std::int64_t group = sort_window_of(slot) + weight.slot_to_row[weight.order_index(column_block, slot)];
  return std::clamp<std::int64_t>(weight.out_features - group * weight.height, 0, weight.height);
}

/// Nonzeros in the slice that begins at slot `first` of a column block.
std::int64_t check_slice(const PackedWeight& weight, const Columns& columns, std::int64_t column_block,
                         std::int64_t first) {
  const std::int64_t at = weight.length_index(column_block, first);
  const std::uint32_t* offsets = weight.slice_offsets + at / kSlice;
  const std::int64_t stripes = std::int64_t{offsets[1]} - offsets[0];
  const std::uint8_t* lengths = weight.row_lengths + at;
  const std::uint8_t* slice = weight.columns + offsets[0] * kStripe;
  const std::int64_t width = block_width(weight, column_block);
  const std::string where = " in column block " + text(column_block) + ", slots from " + text(first);
  if ((*std::max_element(lengths, lengths + kSlice) + kQuad - 1) / kQuad != stripes) {
    refuse_packed("another number of entries than places" + where);
  }
  const std::int64_t full = *std::min_element(lengths, lengths + kSlice) / kQuad;  // stripes without padding
  bool good = all_below(slice, full * kStripe, width);
  std::int64_t nnz = 0;
  for (unsigned s = 0; s < kSlice; ++s) {
    good = good &&
           columns.good(slice + full * kStripe + columns.place[s], lengths[s] - full * kQuad, stripes - full, width);
    const std::int64_t rows = rows_at(weight, column_block, first + s);
    if (rows == 0 && lengths[s] > 0) refuse_packed("entries for output features that it does not have" + where);
    nnz += rows * lengths[s];
  }
  if (!good) refuse_packed("columns that its " + text(weight.in_features) + " input features do not have" + where);
  return nnz;
}

/// Whether a mask has this many bits, all below `width`.
bool good_mask(const std::uint8_t* mask, std::int64_t count, std::int64_t width) {
  std::int64_t bits = 0;
  for (std::int64_t i = 0; i < kMaskBytes; ++i) {
    const std::int64_t inside = std::clamp<std::int64_t>(width - i * 8, 0, 8);
    if (mask[i] >> inside != 0) return false;
    bits += std::popcount(mask[i]);
  }
  return bits == count;
}

/// Columns of a slot of CSR, relative to the column block.
void check_columns(const std::uint8_t* columns, std::int64_t count, const PackedWeight& weight, std::int64_t width,
                   const std::string& where) {
  if (!all_below(columns, count, width)) {
    refuse_packed("columns that its " + text(weight.in_features) + " input features do not have" + where);
  }
  if (std::adjacent_find(columns, columns + count, std::greater_equal<>()) != columns + count) {
    refuse_packed("columns that do not ascend" + where);
  }
}

/// Nonzeros in a slot of a column block of CSR.
std::int64_t check_slot(const PackedWeight& weight, std::int64_t column_block, std::int64_t slot) {
  const std::uint32_t* offsets = weight.slot_offsets + weight.order_index(column_block, slot);
  const std::int64_t count = std::int64_t{offsets[1]} - offsets[0];
  const std::int64_t rows = rows_at(weight, column_block, slot);
  const std::string where = " in column block " + text(column_block) + ", slot " + text(slot);
  if (rows == 0 && count > 0) refuse_packed("entries for output features that it does not have" + where);
  const std::int64_t width = block_width(weight, column_block);
  if (weight.family == Family::csr) {
    check_columns(weight.columns + offsets[0], count, weight, width, where);
  } else if (!good_mask(weight.columns + weight.order_index(column_block, slot) * kMaskBytes, count, width)) {
    refuse_packed("a mask that does not have its entries" + where);
  }
  return rows * count;
}

void check_entries(const PackedWeight& weight, const LayoutEntry& layout, std::int64_t nnz) {
  const Columns columns(layout);
  std::int64_t found = 0;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    for (std::int64_t s = 0; s < weight.slices * kSlice; s += weight.sliced() ? kSlice : 1) {
      found += weight.sliced() ? check_slice(weight, columns, b, s) : check_slot(weight, b, s);
    }
  }
  if (found != nnz) refuse_packed("its rows must have " + text(nnz) + " nonzeros, got " + text(found));
}

/// Nonzeros and sums of int8 values of the rows of 16 row groups, at the slots from `first` on.
struct SlotSums {
  std::int64_t nonzeros[static_cast<std::size_t>(kSlice)] = {};
  std::int64_t values[4][static_cast<std::size_t>(kSlice)] = {};  // of each row of the row groups

  SlotSums(const PackedWeight& weight, std::int64_t first) {
    const auto* all = static_cast<const std::int8_t*>(weight.values);
    const std::uint32_t* offsets = weight.slice_offsets + weight.slice_index(0, first / kSlice);
    for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
      for (std::int64_t s = 0; s < kSlice; ++s) nonzeros[s] += weight.row_lengths[weight.length_index(b, first + s)];
    }
    const std::int64_t most = *std::max_element(nonzeros, nonzeros + kSlice);
    if (most > kMaxInt8Nnz)
      refuse_packed("int8 values allow " + text(kMaxInt8Nnz) + " nonzeros a row, got " + text(most));
    const std::int8_t* stripe = all + offsets[0] * weight.height * kStripe;
    for (std::uint32_t i = offsets[0]; i < offsets[weight.column_blocks]; ++i) {
      for (std::int64_t r = 0; r < weight.height; ++r, stripe += kStripe) add(stripe, values[r]);
    }
  }

 private:
  static void add(const std::int8_t* stripe, std::int64_t* sums) {
    std::uint8_t wrong = 0;
    for (std::int64_t k = 0; k < kStripe; ++k) wrong |= static_cast<std::uint8_t>(stripe[k] == -128);
    if (wrong != 0) refuse_packed("int8 values must be from -127 to 127, got -128");
    for (std::int64_t s = 0; s < kSlice; ++s) {
      const std::int8_t* quad = stripe + s * kQuad;
      sums[s] += quad[0] + quad[1] + quad[2] + quad[3];
    }
  }
};

/// Sums of products of int8 values stay in 32 bits, and `row_sums` are right.
void check_row_sums(const PackedWeight& weight) {
  for (std::int64_t first = 0; first < weight.slices * kSlice; first += kSlice) {
    const SlotSums sums(weight, first);
    for (std::int64_t s = 0; s < kSlice; ++s) {
      const std::int64_t row = (sort_window_of(first) + weight.slot_to_row[first + s]) * weight.height;
      for (std::int64_t r = row; r < std::min(row + weight.height, weight.out_features); ++r) {
        if (weight.row_sums[r] != sums.values[r - row][s])
          refuse_packed("another sum of int8 values in row " + text(r));
      }
    }
  }
}

/// int8 values of CSR.
void check_values(const PackedWeight& weight, std::int64_t entries) {
  const auto* values = static_cast<const std::int8_t*>(weight.values);
  std::uint8_t wrong = 0;
  for (std::int64_t i = 0; i < entries * weight.height; ++i) wrong |= static_cast<std::uint8_t>(values[i] == -128);
  if (wrong != 0) refuse_packed("int8 values must be from -127 to 127, got -128");
}

void check_scales(const PackedWeight& weight) {
  const float* end = weight.scales + weight.out_features;
  const auto good = [](float scale) { return scale > 0.0F && std::isfinite(scale); };
  if (!std::all_of(weight.scales, end, good)) refuse_packed("scales must be positive and finite");
}

}  // namespace

void check_packed(const std::byte* buffer, std::size_t bytes) {
  const PackedHeader& header = packed_header(buffer, bytes);
  const LayoutEntry& layout = layout_entry(header.layout);
  const PackedWeight weight = packed_view(header);
  if (layout.grouped()) return check_dense_int4(weight, header.nnz);
  if (layout.scaled) check_scales(weight);
  if (weight.family == Family::dense) {
    if (layout.scaled) check_dense_s8(weight);
    return;
  }
  weight.sliced() ? check_slice_offsets(weight, header.entries) : check_slot_offsets(weight, header.entries);
  check_order(weight);
  check_entries(weight, layout, header.nnz);
  if (layout.quantizes) check_row_sums(weight);
  if (layout.scaled && !layout.quantizes) check_values(weight, header.entries);
}

}  // namespace sparsekit
