// Walking the rows of a cell of the `quads` layout: the entries of one row lie four by four, a group apart.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

/// A block's tile: where its groups start, and the real entries of each row.
struct Cell {
  const float* values;
  const std::uint8_t* columns;
  const std::uint8_t* counts;
  const std::uint8_t* order;

  static Cell of(const sparsekit::PackedWeight& weight, std::int64_t block, std::int64_t row) {
    const std::int64_t cell = block * weight.tiles() + row / sparsekit::kLanes;
    const std::int64_t group = std::int64_t{weight.starts[cell]} * sparsekit::kGroup;
    return {weight.values + group, weight.columns + group, weight.counts + cell * sparsekit::kLanes,
            weight.order + cell * sparsekit::kLanes};
  }
};

/// Asks for the tile that comes next. Rows are read with a stride that no hardware prefetcher follows.
inline void prefetch_cell(const sparsekit::PackedWeight& weight, std::int64_t block, std::int64_t row) {
  const std::int64_t tile = row / sparsekit::kLanes;
  if (tile >= weight.tiles()) return;
  const std::uint32_t* start = weight.starts + block * weight.tiles() + tile;
  for (std::int64_t g = start[0]; g < start[1]; ++g) {
    for (std::int64_t i = 0; i < sparsekit::kGroup; i += 16)
      __builtin_prefetch(weight.values + g * sparsekit::kGroup + i);
    __builtin_prefetch(weight.columns + g * sparsekit::kGroup);
  }
}

/// One row of a cell: `count` entries, four at a time.
struct Row {
  const float* values;
  const std::uint8_t* columns;
  unsigned count;

  Row(const Cell& cell, unsigned lane)
      : values(cell.values + sparsekit::value_slot(lane)),
        columns(cell.columns + sparsekit::column_slot(lane)),
        count(cell.counts[lane]) {}

  /// The input that entry `i` multiplies, with `tile` floats an input.
  template <int tile>
  const float* input(const float* block, unsigned i) const {
    return block + static_cast<std::size_t>(columns[i]) * static_cast<std::size_t>(tile);
  }

  /// Goes on to the next four.
  void next() {
    values += sparsekit::kGroup;
    columns += sparsekit::kGroup;
  }
};

}  // namespace
