#include "check_packed.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "packed.h"
#include "quads.h"

namespace sparsekit {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("the packed weight is damaged: " + what + "; pack a CSR with CSR.pack()");
}

std::string text(std::int64_t n) { return std::to_string(n); }

/// Groups follow one another and end with the last entry.
void check_starts(const PackedWeight& weight, std::int64_t entries) {
  const std::int64_t cells = weight.blocks * weight.tiles;
  if (weight.starts[0] != 0) refuse("its groups must start at 0, got " + text(weight.starts[0]));
  for (std::int64_t c = 0; c < cells; ++c) {
    if (weight.starts[c + 1] < weight.starts[c]) refuse("its groups must not overlap, but do in cell " + text(c));
  }
  if (weight.starts[cells] * kGroup != entries) {
    refuse("its groups must have " + text(entries) + " entries, got " + text(weight.starts[cells] * kGroup));
  }
}

/// Every position of a window has a lane of its own, and the lane says so.
void check_order(const PackedWeight& weight) {
  const std::int64_t lanes = weight.tiles * kLanes;
  for (std::int64_t b = 0; b < (weight.sliding ? 1 : weight.blocks); ++b) {
    for (std::int64_t p = 0; p < lanes; ++p) {
      const std::int64_t size = std::min(kWindow, lanes - window_of(p));
      const std::int64_t lane = weight.lanes[weight.order_at(b, p)];
      const std::int64_t window = weight.order_at(b, window_of(p));
      if (lane >= size || weight.positions[window + lane] != p - window_of(p)) {
        refuse("position " + text(p) + " of block " + text(b) + " has no lane of its own");
      }
    }
  }
}

/// Where the columns of a lane are, and what padded ones are.
struct Columns {
  unsigned slot[static_cast<std::size_t>(kLanes)];
  std::uint8_t padding;

  explicit Columns(const LayoutEntry& layout) : slot{}, padding(layout.padding) {
    for (unsigned l = 0; l < kLanes; ++l) {
      slot[l] = layout.value_bytes == 1 ? column_slot<std::int8_t>(l) : column_slot<float>(l);
    }
  }

  /// Whether the first `count` columns of a lane are below `width`, and the others, in whole groups, padding.
  bool good(const std::uint8_t* lane, std::int64_t count, std::int64_t groups, std::int64_t width) const {
    bool wrong = false;
    for (std::int64_t i = 0; i < groups * kQuad; ++i) {
      const std::uint8_t column = lane[i / kQuad * kGroup + i % kQuad];
      wrong |= i < count ? column >= width : column != padding;
    }
    return !wrong;
  }
};

bool all_below(const std::uint8_t* columns, std::int64_t count, std::int64_t width) {
  std::uint8_t most = 0;
  for (std::int64_t i = 0; i < count; ++i) most = std::max(most, columns[i]);
  return count == 0 || most < width;
}

/// Entries of the output features of a lane in the cell that begins at position `first` of a block.
std::int64_t check_cell(const PackedWeight& weight, const Columns& columns, std::int64_t block, std::int64_t first) {
  const std::int64_t at = weight.at(block, first);
  const std::uint32_t* starts = weight.starts + at / kLanes;
  const std::int64_t groups = std::int64_t{starts[1]} - starts[0];
  const std::uint8_t* counts = weight.counts + at;
  const std::uint8_t* cell = weight.columns + starts[0] * kGroup;
  const std::int64_t width = std::min(kBlockWidth, weight.in_features - weight.start(block));
  const std::string where = " in block " + text(block) + ", lanes from " + text(first);
  if ((*std::max_element(counts, counts + kLanes) + kQuad - 1) / kQuad != groups) {
    refuse("another number of entries than places" + where);
  }
  const std::int64_t full = *std::min_element(counts, counts + kLanes) / kQuad;  // groups without padding
  bool good = all_below(cell, full * kGroup, width);
  std::int64_t nnz = 0;
  for (unsigned l = 0; l < kLanes; ++l) {
    good = good && columns.good(cell + full * kGroup + columns.slot[l], counts[l] - full * kQuad, groups - full, width);
    const std::int64_t lane = window_of(first) + weight.lanes[weight.order_at(block, first + l)];
    const std::int64_t rows = std::clamp<std::int64_t>(weight.out_features - lane * weight.height, 0, weight.height);
    if (rows == 0 && counts[l] > 0) refuse("entries for output features that it does not have" + where);
    nnz += rows * counts[l];
  }
  if (!good) refuse("columns that its " + text(weight.in_features) + " input features do not have" + where);
  return nnz;
}

void check_cells(const PackedWeight& weight, const LayoutEntry& layout, std::int64_t nnz) {
  const Columns columns(layout);
  std::int64_t found = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    for (std::int64_t p = 0; p < weight.tiles * kLanes; p += kLanes) found += check_cell(weight, columns, b, p);
  }
  if (found != nnz) refuse("its rows must have " + text(nnz) + " nonzeros, got " + text(found));
}

/// Nonzeros and sum of the codes of the output features of the 16 lanes at the positions from `first` on.
struct TileSums {
  std::int64_t nonzeros[static_cast<std::size_t>(kLanes)] = {};
  std::int64_t codes[4][static_cast<std::size_t>(kLanes)] = {};  // of a lane's output features

  TileSums(const PackedWeight& weight, std::int64_t first) {
    const auto* all = static_cast<const std::int8_t*>(weight.values);
    const std::uint32_t* starts = weight.starts + weight.cell(0, first / kLanes);
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      for (std::int64_t l = 0; l < kLanes; ++l) nonzeros[l] += weight.counts[weight.at(b, first + l)];
    }
    const std::int64_t most = *std::max_element(nonzeros, nonzeros + kLanes);
    if (most > kMostCodes) refuse("int8 values allow " + text(kMostCodes) + " nonzeros a row, got " + text(most));
    const std::int8_t* group = all + starts[0] * weight.height * kGroup;
    for (std::uint32_t g = starts[0]; g < starts[weight.blocks]; ++g) {
      for (std::int64_t r = 0; r < weight.height; ++r, group += kGroup) add(group, codes[r]);
    }
  }

 private:
  static void add(const std::int8_t* group, std::int64_t* sums) {
    std::uint8_t wrong = 0;
    for (std::int64_t k = 0; k < kGroup; ++k) wrong |= static_cast<std::uint8_t>(group[k] == -128);
    if (wrong != 0) refuse("codes must be from -127 to 127, got -128");
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const std::int8_t* quad = group + l * kQuad;
      sums[l] += quad[0] + quad[1] + quad[2] + quad[3];
    }
  }
};

/// Sums of products of codes stay in 32 bits, and `totals` are those of the codes.
void check_codes(const PackedWeight& weight) {
  for (std::int64_t first = 0; first < weight.tiles * kLanes; first += kLanes) {
    const TileSums sums(weight, first);
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const std::int64_t row = (window_of(first) + weight.lanes[first + l]) * weight.height;
      for (std::int64_t r = row; r < std::min(row + weight.height, weight.out_features); ++r) {
        if (weight.totals[r] != sums.codes[r - row][l]) refuse("another sum of codes in row " + text(r));
      }
    }
  }
}

void check_scales(const PackedWeight& weight) {
  const float* end = weight.scales + weight.out_features;
  const auto good = [](float scale) { return scale > 0.0F && std::isfinite(scale); };
  if (!std::all_of(weight.scales, end, good)) refuse("scales must be positive and finite");
}

}  // namespace

void check_packed(const std::byte* buffer, std::size_t bytes) {
  const PackedHeader& header = packed_header(buffer, bytes);
  const LayoutEntry& layout = layout_entry(header.layout);
  const PackedWeight weight = packed_view(header);
  check_starts(weight, header.entries);
  check_order(weight);
  check_cells(weight, layout, header.nnz);
  if (layout.scaled) {
    check_codes(weight);
    check_scales(weight);
  }
}

}  // namespace sparsekit
