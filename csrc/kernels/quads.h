// Walking the rows of a cell of the `quads` layout: the entries of one row lie four by four, a group apart.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

/// Tiles of a window.
inline constexpr std::int64_t kTilesOfWindow = sparsekit::kWindow / sparsekit::kLanes;

/// Bytes from the values of a cell to those that are asked for while it is computed.
inline constexpr std::int64_t kAhead = 4096;

/// A block's tile: where its groups start, and the real entries and output features of each row.
struct Cell {
  const float* values;
  const std::uint8_t* columns;
  const std::uint8_t* counts;
  const std::uint8_t* rows;  // relative to the window
  unsigned groups;

  static Cell of(const sparsekit::PackedWeight& weight, std::int64_t block, std::int64_t position) {
    const std::int64_t at = weight.at(block, position);
    const std::uint32_t* starts = weight.starts + at / sparsekit::kLanes;
    const std::int64_t group = std::int64_t{starts[0]} * sparsekit::kGroup;
    return {weight.values + group, weight.columns + group, weight.counts + at, weight.rows + at, starts[1] - starts[0]};
  }
};

/// Asks for one of 16 parts of as much as a cell holds, `kAhead` bytes of values further on: rows are read with a
/// stride that no hardware prefetcher follows, and all requests at once would hold up the loads after them.
inline void prefetch_share(const Cell& cell, unsigned share) {
  constexpr unsigned kLine = 64;
  const unsigned bytes = cell.groups * kLine / 4;  // of values for each row
  const auto* values = reinterpret_cast<const char*>(cell.values) + kAhead + share * bytes;
  for (unsigned at = 0; at < bytes; at += kLine) __builtin_prefetch(values + at);
  __builtin_prefetch(reinterpret_cast<const char*>(cell.columns) + kAhead / 4 + share * bytes / 4);
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
