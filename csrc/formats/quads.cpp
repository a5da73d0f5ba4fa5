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

/// Calls `visit(block, lane, i, count)` for the `count` entries that a lane has in a block; those of its first output
/// feature are the entries of the CSR from `i` on.
template <class Visit>
void for_each_run(const CsrView& csr, std::int64_t height, const Visit& visit) {
  for (std::int64_t row = 0; row < csr.out_features; row += height) {
    const std::int64_t last = csr.crow_indices[row + 1];
    for (std::int64_t i = csr.crow_indices[row], end = i; i < last; i = end) {
      const std::int64_t block = csr.col_indices[i] / kBlockWidth;
      while (end < last && csr.col_indices[end] < (block + 1) * kBlockWidth) ++end;
      visit(block, row / height, i, end - i);
    }
  }
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

/// Entries of every lane in every block, [blocks, lanes].
std::vector<std::uint8_t> counts_by_lane(const CsrView& csr, std::int64_t height, const Cells& cells) {
  const std::int64_t lanes = cells.tiles * kLanes;
  std::vector<std::uint8_t> counts(static_cast<std::size_t>(cells.blocks * lanes));
  for_each_run(csr, height, [&](std::int64_t block, std::int64_t lane, std::int64_t, std::int64_t count) {
    counts[static_cast<std::size_t>(block * lanes + lane)] = static_cast<std::uint8_t>(count);
  });
  return counts;
}

/// Column of a CSR within its block.
std::uint8_t column_in_block(std::int32_t column) { return static_cast<std::uint8_t>(column % kBlockWidth); }

/// The columns of every lane in every block, [blocks, lanes].
std::vector<ColumnSet> columns_by_lane(const CsrView& csr, std::int64_t height, const Cells& cells) {
  const std::int64_t lanes = cells.tiles * kLanes;
  std::vector<ColumnSet> sets(static_cast<std::size_t>(cells.blocks * lanes));
  for_each_run(csr, height, [&](std::int64_t block, std::int64_t lane, std::int64_t first, std::int64_t count) {
    ColumnSet& set = sets[static_cast<std::size_t>(block * lanes + lane)];
    for (std::int64_t i = first; i < first + count; ++i) set.set(column_in_block(csr.col_indices[i]));
  });
  return sets;
}

/// Puts the lanes of one block in order and appends where its cells start. `sets`: of the block's lanes where
/// neighbours are to share inputs, or null.
void plan_block(const std::uint8_t* counts, const ColumnSet* sets, std::int64_t lanes, std::int64_t first,
                PackPlan& plan) {
  for (std::int64_t l = 0; l < lanes; l += kWindow) {
    const std::int64_t size = std::min(kWindow, lanes - l);
    std::uint8_t* order = plan.lanes.data() + first + l;
    sort_lanes(counts + l, order, size);
    for (std::int64_t t = 0; sets != nullptr && t < size; t += kLanes) pair_lanes(sets + l, order + t);
    std::uint8_t* positions = plan.positions.data() + first + l;
    for (std::int64_t p = 0; p < size; ++p) positions[order[p]] = static_cast<std::uint8_t>(p);
  }
  for (std::int64_t p = 0; p < lanes; ++p) {
    const auto at = static_cast<std::size_t>(first + p);
    plan.counts[at] = counts[window_of(p) + plan.lanes[at]];
  }
  for (std::int64_t p = 0; p < lanes; p += kLanes) {
    const std::uint32_t most =
        *std::max_element(plan.counts.data() + first + p, plan.counts.data() + first + p + kLanes);
    plan.starts.push_back(plan.starts.back() + (most + kQuad - 1) / kQuad);
  }
}

void plan_blocks(const CsrView& csr, const LayoutEntry& layout, const Cells& cells, PackPlan& plan) {
  const std::int64_t lanes = cells.tiles * kLanes;
  const std::vector<std::uint8_t> counts = counts_by_lane(csr, layout.height, cells);
  for (auto* array : {&plan.counts, &plan.lanes, &plan.positions}) array->resize(counts.size());
  const std::vector<ColumnSet> sets =
      layout.paired ? columns_by_lane(csr, layout.height, cells) : std::vector<ColumnSet>();
  for (std::int64_t first = 0; first < cells.blocks * lanes; first += lanes) {
    plan_block(counts.data() + first, layout.paired ? sets.data() + first : nullptr, lanes, first, plan);
  }
}

/// A sum of products of codes and quantised inputs, at most 127 * 255 each, stays in 32 bits up to this many.
constexpr std::int64_t kMostCodes = std::numeric_limits<std::int32_t>::max() / (127 * 255);

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

/// The entries of a lane in a block, as planned.
struct Run {
  std::int64_t block;
  std::int64_t lane;
  std::int64_t position;
  std::int64_t at;     // of their count in the plan
  std::int64_t first;  // entry of the CSR, of the lane's first output feature
  std::int64_t last;
};

/// Calls `visit(run)` for every lane and block.
template <class Visit>
void for_each_planned(const CsrView& csr, std::int64_t height, const Cells& cells, const PackPlan& plan,
                      const Visit& visit) {
  for (std::int64_t row = 0; row < csr.out_features; row += height) {
    const std::int64_t lane = row / height;
    std::int64_t first = csr.crow_indices[row];
    for (std::int64_t b = 0; b < cells.blocks; ++b) {
      const std::int64_t position = window_of(lane) + plan.positions[static_cast<std::size_t>(cells.order_at(b, lane))];
      const std::int64_t at = cells.at(b, position);
      const std::int64_t last = first + plan.counts[static_cast<std::size_t>(at)];
      visit(Run{b, lane, position, at, first, last});
      first = last;
    }
  }
}

/// Where the entries of a run are among those of their lane; `sets` as `columns_by_lane` gives them for lanes that
/// share inputs.
Places paired_places(const Run& run, const std::vector<ColumnSet>& sets, const Cells& cells, const PackPlan& plan) {
  const auto window = static_cast<std::size_t>(cells.order_at(run.block, window_of(run.lane)));
  const std::uint8_t* order = plan.lanes.data() + window;
  const std::int64_t position = run.position - window_of(run.position);
  const std::size_t shared = shared_entries(sets.data() + window, order + position / kLanes * kLanes);
  return {sets[window + order[position]], sets[window + order[position ^ 1]], shared};
}

template <class Value>
Value held(float value, const PackPlan& plan, std::int64_t row) {
  if constexpr (std::is_same_v<Value, float>) return value;
  if constexpr (std::is_same_v<Value, BFloat16>) return to_bfloat16(value);
  if constexpr (std::is_same_v<Value, Float16>) return to_float16(value);
  if constexpr (std::is_same_v<Value, std::int8_t>) return to_code(value, plan.scales[static_cast<std::size_t>(row)]);
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

template <class Value, int height>
void fill_quads(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* typed = reinterpret_cast<Value*>(values);
  const Cells cells = cells_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  std::vector<ColumnSet> sets;
  if constexpr (kPaired<Value, height>) sets = columns_by_lane(csr, height, cells);
  for_each_planned(csr, height, cells, plan, [&](const Run& run) {
    Places places;
    if constexpr (kPaired<Value, height>) places = paired_places(run, sets, cells, plan);
    const Place<Value, height> place(plan.starts.data(), run.at);
    const std::int64_t row = run.lane * height;
    for (std::int64_t i = run.first; i < run.last; ++i) {
      const auto column = static_cast<std::uint8_t>(csr.col_indices[i] - cells.start(run.block));
      const auto to = static_cast<std::int64_t>(places.next(column));
      columns[place.column(to)] = column;
      for (std::int64_t r = 0; r < rows_of(csr.out_features, height, run.lane); ++r) {
        const float value = csr.values[i - csr.crow_indices[row] + csr.crow_indices[row + r]];
        typed[place.value(to, r)] = held<Value>(value, plan, row + r);
      }
    }
  });
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
