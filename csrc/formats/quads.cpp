#include "quads.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "pairs.h"
#include "sliding.h"
#include "values.h"

namespace sparsekit {
namespace {

/// Output features of a lane that are real: the last lane may have fewer.
std::int64_t rows_of(std::int64_t out_features, std::int64_t height, std::int64_t lane) {
  return std::min(height, out_features - lane * height);
}

/// Throws where output features of one lane have entries in different columns.
void check_lanes(const CsrView& csr, std::int64_t height) {
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    const std::int64_t first = row / height * height;
    const std::int32_t* columns = csr.col_indices + csr.crow_indices[row];
    const std::int32_t* wanted = csr.col_indices + csr.crow_indices[first];
    if (!std::equal(columns, csr.col_indices + csr.crow_indices[row + 1], wanted,
                    csr.col_indices + csr.crow_indices[first + 1])) {
      throw std::invalid_argument("blocks of " + std::to_string(height) + "x1 must be full, but the rows " +
                                  std::to_string(first) + " and " + std::to_string(row) +
                                  " have entries in different columns");
    }
  }
}

/// Asks for the cache line after this one, which may lie behind the end of the array.
void prefetch_after(const void* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + 64));
}

/// The lanes of a window from block to block: where the entries of each begin, those of its first output feature, and
/// which columns they are in. Packing holds no more than this of a weight besides the CSR and the packed one.
struct WindowRuns {
  std::int64_t first[kWindow];
  std::int64_t last[kWindow];
  std::int64_t end[kWindow];  // of all entries
  ColumnSet sets[kWindow];

  /// Before the first block, for the `size` lanes from `lane` on.
  WindowRuns(const CsrView& csr, std::int64_t height, std::int64_t lane, std::int64_t size) {
    for (std::int64_t l = 0; l < size; ++l) {
      const std::int64_t row = std::min((lane + l) * height, csr.out_features);
      last[l] = csr.crow_indices[row];
      end[l] = csr.crow_indices[std::min(row + 1, csr.out_features)];
    }
  }

  /// Goes on to the next entries of lane `l`: those in columns below `limit`.
  std::int64_t go_on(const CsrView& csr, std::int64_t l, std::int64_t limit) {
    first[l] = last[l];
    while (last[l] < end[l] && csr.col_indices[last[l]] < limit) ++last[l];
    return last[l] - first[l];
  }

  /// Goes on to the next `count` entries of lane `l`. So many lanes are read in turn that no hardware prefetcher
  /// follows.
  void take(const CsrView& csr, std::int64_t l, std::int64_t count) {
    first[l] = last[l];
    last[l] += count;
    prefetch_after(csr.col_indices + last[l]);
    prefetch_after(csr.values + last[l]);
  }

  /// The columns that the lane has entries in, in the block that begins at `start`.
  void find_columns(const CsrView& csr, std::int64_t l, std::int64_t start) {
    sets[l].reset();
    for (std::int64_t i = first[l]; i < last[l]; ++i) {
      sets[l][static_cast<std::size_t>(csr.col_indices[i] - start)] = true;
    }
  }
};

/// Puts the lanes of a window in order, block by block.
void plan_window(const CsrView& csr, const LayoutEntry& layout, const Cells& cells, std::int64_t lane, PackPlan& plan) {
  const std::int64_t size = std::min(kWindow, cells.tiles * kLanes - lane);
  WindowRuns runs(csr, layout.height, lane, size);
  for (std::int64_t b = 0; b < cells.blocks; ++b) {
    std::uint8_t counts[kWindow];
    for (std::int64_t l = 0; l < size; ++l) {
      counts[l] = static_cast<std::uint8_t>(runs.go_on(csr, l, cells.start(b) + kBlockWidth));
      if (layout.paired) runs.find_columns(csr, l, cells.start(b));
    }
    const auto at = static_cast<std::size_t>(cells.order_at(b, lane));
    std::uint8_t* order = plan.lanes.data() + at;
    sort_lanes(counts, order, size);
    for (std::int64_t t = 0; layout.paired && t < size; t += kLanes) pair_lanes(runs.sets, order + t);
    for (std::int64_t p = 0; p < size; ++p) {
      plan.positions[at + order[p]] = static_cast<std::uint8_t>(p);
      plan.counts[at + static_cast<std::size_t>(p)] = counts[order[p]];
    }
  }
}

void plan_blocks(const CsrView& csr, const LayoutEntry& layout, const Cells& cells, PackPlan& plan) {
  const std::int64_t lanes = cells.tiles * kLanes;
  for (auto* array : {&plan.counts, &plan.lanes, &plan.positions}) {
    array->resize(static_cast<std::size_t>(cells.blocks * lanes));
  }
  for (std::int64_t lane = 0; lane < lanes; lane += kWindow) plan_window(csr, layout, cells, lane, plan);
  for (auto cell = plan.counts.begin(); cell != plan.counts.end(); cell += kLanes) {
    const std::uint32_t most = *std::max_element(cell, cell + kLanes);
    plan.starts.push_back(plan.starts.back() + (most + kQuad - 1) / kQuad);
  }
}

void check_row_of_codes(const CsrView& csr, std::int64_t row, float scale) {
  const std::int64_t first = csr.crow_indices[row];
  const std::int64_t last = csr.crow_indices[row + 1];
  const std::string where = " in row " + std::to_string(row);
  if (last - first > kMostCodes) {
    throw std::invalid_argument("int8 values allow " + std::to_string(kMostCodes) + " nonzeros a row, got " +
                                std::to_string(last - first) + where);
  }
  const float* wrong = std::find_if(csr.values + first, csr.values + last, [](float v) { return !std::isfinite(v); });
  if (wrong != csr.values + last) {
    throw std::invalid_argument("int8 values must be finite, got " + std::to_string(*wrong) + where);
  }
  if (!(scale > 0.0F && std::isfinite(scale))) {
    throw std::invalid_argument("scales must be positive and finite, got " + std::to_string(scale) + where);
  }
}

void plan_totals(const CsrView& csr, PackPlan& plan) {
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    const float scale = plan.scales[static_cast<std::size_t>(r)];
    check_row_of_codes(csr, r, scale);
    std::int32_t total = 0;
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) total += to_code(csr.values[i], scale);
    plan.totals.push_back(total);
  }
}

/// Where entries of one position lie, counted from the start of all values or columns.
template <class Value, int height>
struct Place {
  std::int64_t group;
  unsigned lane;

  Place(const std::uint32_t* starts, std::int64_t at)
      : group(starts[at / kLanes]), lane(static_cast<unsigned>(at % kLanes)) {}

  std::int64_t value(std::int64_t i, std::int64_t row) const {
    return ((group + i / kQuad) * height + row) * kGroup + value_slot<Value>(lane, static_cast<unsigned>(i % kQuad));
  }
  std::int64_t column(std::int64_t i) const {
    return (group + i / kQuad) * kGroup + column_slot<Value>(lane) + i % kQuad;
  }
};

template <class Value>
Value held(float value, float scale) {
  if constexpr (std::is_same_v<Value, float>) return value;
  if constexpr (std::is_same_v<Value, BFloat16>) return to_bfloat16(value);
  if constexpr (std::is_same_v<Value, Float16>) return to_float16(value);
  if constexpr (std::is_same_v<Value, std::int8_t>) return to_code(value, scale);
}

template <class Value>
float float_from(Value value, const PackedWeight& weight, std::int64_t row) {
  if constexpr (std::is_same_v<Value, float>) return value;
  if constexpr (std::is_same_v<Value, BFloat16> || std::is_same_v<Value, Float16>) return to_float(value);
  if constexpr (std::is_same_v<Value, std::int8_t>) return weight.scales[row] * static_cast<float>(value);
}

}  // namespace

void plan_quads(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan) {
  // Every group holds a nonzero, so this bounds the groups too.
  if (csr.values_size > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 nonzeros, got " +
                                std::to_string(csr.values_size));
  }
  if (layout.height > 1) check_lanes(csr, layout.height);
  const Cells cells = cells_for(layout, csr.out_features, csr.in_features);
  plan.starts.assign(1, 0);
  if (layout.sliding) {
    plan_sliding(csr, layout.height, cells, plan);
  } else {
    plan_blocks(csr, layout, cells, plan);
  }
  if (layout.scaled) plan_totals(csr, plan);
}

namespace {

/// The output features of a lane while its entries are written: values that go on from entry to entry, and scales.
template <class Value, int height>
struct LaneRows {
  std::int64_t count;
  const float* values[static_cast<std::size_t>(height)] = {};  // of entry 0 of the lane's first output feature
  float scales[static_cast<std::size_t>(height)] = {};

  LaneRows(const CsrView& csr, const PackPlan& plan, std::int64_t lane)
      : count(rows_of(csr.out_features, height, lane)) {
    const std::int64_t row = lane * height;
    for (std::int64_t r = 0; r < count; ++r) {
      values[r] = csr.values + (csr.crow_indices[row + r] - csr.crow_indices[row]);
      if constexpr (sizeof(Value) == 1) scales[r] = plan.scales[static_cast<std::size_t>(row + r)];
    }
  }
};

/// Writes the entries of a lane in a block, `[first, last)` of its first output feature, from `place` on.
template <class Value, int height>
void fill_run(const LaneRows<Value, height>& rows, const std::int32_t* col_indices, std::int64_t first,
              std::int64_t last, std::int64_t start, Places places, const Place<Value, height>& place, Value* values,
              std::uint8_t* columns) {
  for (std::int64_t i = first; i < last; ++i) {
    const auto column = static_cast<std::uint8_t>(col_indices[i] - start);
    const auto to = static_cast<std::int64_t>(places.next(column));
    columns[place.column(to)] = column;
    for (std::int64_t r = 0; r < rows.count; ++r) {
      values[place.value(to, r)] = held<Value>(rows.values[r][i], rows.scales[r]);
    }
  }
}

/// Writes the entries of a lane, block by block.
template <class Value, int height>
void fill_lane(const CsrView& csr, const PackPlan& plan, const Cells& cells, std::int64_t lane, Value* values,
               std::uint8_t* columns) {
  const LaneRows<Value, height> rows(csr, plan, lane);
  std::int64_t first = csr.crow_indices[lane * height];
  for (std::int64_t b = 0; b < cells.blocks; ++b) {
    const std::int64_t position = window_of(lane) + plan.positions[static_cast<std::size_t>(cells.order_at(b, lane))];
    const std::int64_t at = cells.at(b, position);
    const std::int64_t last = first + plan.counts[static_cast<std::size_t>(at)];
    fill_run(rows, csr.col_indices, first, last, cells.start(b), Places(), Place<Value, height>(plan.starts.data(), at),
             values, columns);
    first = last;
  }
}

/// Writes the entries of a window's lanes, from `lane` on, where neighbours share inputs.
template <class Value, int height>
void fill_pairs(const CsrView& csr, const PackPlan& plan, const Cells& cells, std::int64_t lane, Value* values,
                std::uint8_t* columns) {
  const std::int64_t size = std::min(kWindow, cells.tiles * kLanes - lane);
  WindowRuns runs(csr, height, lane, size);
  for (std::int64_t b = 0; b < cells.blocks; ++b) {
    const std::uint8_t* order = plan.lanes.data() + cells.order_at(b, lane);
    for (std::int64_t p = 0; p < size; ++p) {
      runs.take(csr, order[p], plan.counts[static_cast<std::size_t>(cells.at(b, lane + p))]);
      runs.find_columns(csr, order[p], cells.start(b));
    }
    std::size_t shared = 0;
    for (std::int64_t p = 0; p < size; ++p) {
      const std::int64_t l = order[p];
      if (p % kLanes == 0) shared = shared_entries(runs.sets, order + p);
      fill_run(LaneRows<Value, height>(csr, plan, lane + l), csr.col_indices, runs.first[l], runs.last[l],
               cells.start(b), Places(runs.sets[l], runs.sets[order[p ^ 1]], shared),
               Place<Value, height>(plan.starts.data(), cells.at(b, lane + p)), values, columns);
    }
  }
}

}  // namespace

template <class Value, int height>
void fill_quads(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  const Cells cells = cells_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  auto* typed = reinterpret_cast<Value*>(values);
  if constexpr (kPaired<Value, height>) {
    for (std::int64_t lane = 0; lane < cells.tiles * kLanes; lane += kWindow) {
      fill_pairs<Value, height>(csr, plan, cells, lane, typed, columns);
    }
  } else {
    for (std::int64_t lane = 0; lane * height < csr.out_features; ++lane) {
      fill_lane<Value, height>(csr, plan, cells, lane, typed, columns);
    }
  }
}

template <class Value, int height>
CsrArrays unpack_quads(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  CsrArrays csr = csr_with_capacity(weight.out_features, nnz);
  std::vector<std::pair<std::int32_t, float>> entries;
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    const std::int64_t lane = row / height;
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      const std::int64_t at = weight.at(b, window_of(lane) + weight.positions[weight.order_at(b, lane)]);
      const Place<Value, height> place(weight.starts, at);
      entries.clear();
      for (std::int64_t i = 0; i < weight.counts[at]; ++i) {
        entries.emplace_back(static_cast<std::int32_t>(weight.start(b) + weight.columns[place.column(i)]),
                             float_from(values[place.value(i, row % height)], weight, row));
      }
      std::sort(entries.begin(), entries.end(),
                [](const auto& one, const auto& other) { return one.first < other.first; });
      for (const auto& [column, value] : entries) {
        csr.col_indices.push_back(column);
        csr.values.push_back(value);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

std::int64_t work_before(const PackedWeight& weight, std::int64_t lane) {
  if (weight.sliding) return std::int64_t{weight.starts[weight.cell(0, lane / kLanes)]} * kGroup;
  std::int64_t groups = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint32_t* start = weight.starts + b * weight.tiles;
    groups += start[lane / kLanes] - start[0];
  }
  return groups * kGroup;
}

#define SPARSEKIT_QUADS(Value, height)                                                                 \
  template void fill_quads<Value, height>(const CsrView&, const PackPlan&, std::byte*, std::uint8_t*); \
  template CsrArrays unpack_quads<Value, height>(const PackedWeight&, std::int64_t);
SPARSEKIT_QUADS(float, 1)
SPARSEKIT_QUADS(BFloat16, 1)
SPARSEKIT_QUADS(Float16, 1)
SPARSEKIT_QUADS(std::int8_t, 1)
SPARSEKIT_QUADS(float, 4)
SPARSEKIT_QUADS(BFloat16, 4)
SPARSEKIT_QUADS(Float16, 4)
SPARSEKIT_QUADS(std::int8_t, 4)
#undef SPARSEKIT_QUADS

}  // namespace sparsekit
