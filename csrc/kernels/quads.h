// Walking the lanes of a cell of the `quads` layouts: the entries of one lane lie four by four, a group apart.
#pragma once

#include <cstddef>

#include "views.h"

namespace {

/// Tiles of a window.
inline constexpr std::int64_t kTilesOfWindow = sparsekit::kWindow / sparsekit::kLanes;

/// Bytes from the values of a cell to those that are asked for while it is computed.
inline constexpr std::int64_t kAhead = 4096;

/// A layout as kernels are compiled for it: the type of a value, and the output features of a lane.
template <class Held, int rows, sparsekit::Layout which>
struct Quads {
  using Value = Held;
  static constexpr int height = rows;
  static constexpr sparsekit::Layout layout = which;
  static constexpr std::int64_t values = rows * sparsekit::kGroup;  // of a group
};

using Float = Quads<float, 1, sparsekit::Layout::quads_f32>;
using Half = Quads<sparsekit::Float16, 1, sparsekit::Layout::quads_fp16>;
using Brain = Quads<sparsekit::BFloat16, 1, sparsekit::Layout::quads_bf16>;
using Codes = Quads<std::int8_t, 1, sparsekit::Layout::quads_s8>;
using Float4x1 = Quads<float, 4, sparsekit::Layout::quads_4x1_f32>;
using Half4x1 = Quads<sparsekit::Float16, 4, sparsekit::Layout::quads_4x1_fp16>;
using Brain4x1 = Quads<sparsekit::BFloat16, 4, sparsekit::Layout::quads_4x1_bf16>;
using Codes4x1 = Quads<std::int8_t, 4, sparsekit::Layout::quads_4x1_s8>;

/// Lanes of a range of output features that starts at a window.
template <class Format>
constexpr sparsekit::RowRange lanes_of(sparsekit::RowRange rows) {
  return {rows.first / Format::height, (rows.last + Format::height - 1) / Format::height};
}

/// A block's tile: where its groups start, and the real entries and the place of each lane.
template <class Format>
struct Cell {
  const typename Format::Value* values;
  const std::uint8_t* columns;
  const std::uint8_t* counts;
  const std::uint8_t* lanes;  // relative to the window
  unsigned groups;

  static Cell of(const sparsekit::PackedWeight& weight, std::int64_t block, std::int64_t position) {
    const std::int64_t at = weight.at(block, position);
    const std::uint32_t* starts = weight.starts + at / sparsekit::kLanes;
    const std::int64_t group = starts[0];
    const auto* values = static_cast<const typename Format::Value*>(weight.values);
    return {values + group * Format::values, weight.columns + group * sparsekit::kGroup, weight.counts + at,
            weight.lanes + weight.order_at(block, position), starts[1] - starts[0]};
  }

  /// Whether neighbouring lanes begin with the same columns. All pairs do or none, so looking at the first is enough.
  bool shares() const {
    return groups > 0 &&
           __builtin_memcmp(columns + sparsekit::column_slot<typename Format::Value>(0),
                            columns + sparsekit::column_slot<typename Format::Value>(1), sparsekit::kQuad) == 0;
  }
};

/// Asks for the share that `lanes` lanes have in as much as a cell holds, `kAhead` bytes of values further on: lanes
/// are read with a stride that no hardware prefetcher follows, and all requests at once would hold up the loads after
/// them. Lanes take turns, a line each.
template <unsigned lanes, class Format>
inline void prefetch_share(const Cell<Format>& cell, unsigned lane) {
  constexpr unsigned kLine = 64;
  constexpr unsigned kTurn = kLine * static_cast<unsigned>(sparsekit::kLanes) / lanes;
  constexpr unsigned kBytes = Format::values * sizeof(typename Format::Value);  // of a group
  const auto* values = reinterpret_cast<const char*>(cell.values) + kAhead;
  const unsigned end = cell.groups * kBytes;
  for (unsigned at = lane / lanes * kLine; at < end; at += kTurn) __builtin_prefetch(values + at);
}

/// The same for the columns of a cell, which are fewer.
template <class Format>
inline void prefetch_columns(const Cell<Format>& cell) {
  constexpr std::int64_t kColumnsAhead =
      kAhead / static_cast<std::int64_t>(Format::height * sizeof(typename Format::Value));
  for (unsigned g = 0; g < cell.groups; ++g) __builtin_prefetch(cell.columns + kColumnsAhead + g * sparsekit::kGroup);
}

/// The groups of a tile of lanes where blocks slide: those of one block follow those of the block before.
template <class Format>
struct Groups {
  const typename Format::Value* codes;
  const std::uint8_t* columns;
  const std::uint32_t* starts;  // of the blocks
  unsigned group;

  static Groups of(const sparsekit::PackedWeight& weight, std::int64_t position) {
    const std::uint32_t* starts = weight.starts + weight.cell(0, position / sparsekit::kLanes);
    const std::size_t first = *starts;
    return {static_cast<const typename Format::Value*>(weight.values) + first * Format::values,
            weight.columns + first * sparsekit::kGroup, starts, *starts};
  }

  void next() {
    codes += Format::values;
    columns += sparsekit::kGroup;
    ++group;
  }
};

/// The columns of four entries of a lane, from one load.
struct QuadColumns {
  std::uint32_t bytes;

  template <int tile, class Number>
  const Number* input(const Number* block, unsigned i) const {
    return block + static_cast<std::size_t>(bytes >> (8 * i) & 0xFFU) * static_cast<std::size_t>(tile);
  }
};

/// The entries of one lane of a cell, four at a time.
template <class Format>
struct Entries {
  using Value = typename Format::Value;
  const Value* values;
  const std::uint8_t* columns;
  unsigned count;

  Entries(const Cell<Format>& cell, unsigned lane)
      : values(cell.values + sparsekit::value_slot<Value>(lane, 0)),
        columns(cell.columns + sparsekit::column_slot<Value>(lane)),
        count(cell.counts[lane]) {}

  /// Value `i` of the lane's output feature `row`.
  const Value* value(unsigned i, int row = 0) const {
    return values + row * sparsekit::kGroup + sparsekit::value_slot<Value>(0, i);
  }

  /// The input that entry `i` multiplies, with `tile` numbers an input.
  template <int tile, class Number>
  const Number* input(const Number* block, unsigned i) const {
    return block + static_cast<std::size_t>(columns[i]) * static_cast<std::size_t>(tile);
  }

  QuadColumns four_columns() const {
    QuadColumns four;
    __builtin_memcpy(&four.bytes, columns, sizeof(four.bytes));
    asm volatile("" : "+r"(four.bytes));  // or gcc makes four loads of it again
    return four;
  }

  /// Goes on to the next four.
  void next() {
    values += Format::values;
    columns += sparsekit::kGroup;
  }

  /// Takes four from those that are left.
  void take() {
    count -= sparsekit::kQuad;
    next();
  }
};

}  // namespace
