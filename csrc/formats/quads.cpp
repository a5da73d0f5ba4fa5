#include "quads.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace sparsekit {
namespace {

/// `rows` of the layout: for every position, the row of its window that it holds, by falling number of nonzeros.
std::vector<std::uint8_t> sorted_rows(const CsrView& csr) {
  std::vector<std::uint8_t> rows(static_cast<std::size_t>(padded_lanes(csr.out_features)));
  for (std::int64_t first = 0; first < static_cast<std::int64_t>(rows.size()); first += kWindow) {
    const std::int64_t end = std::min(first + kWindow, static_cast<std::int64_t>(rows.size()));
    std::uint8_t* window = rows.data() + first;
    for (std::int64_t i = 0; i < end - first; ++i) window[i] = static_cast<std::uint8_t>(i);
    const auto nnz = [&](std::uint8_t i) { return csr.crow_indices[first + i + 1] - csr.crow_indices[first + i]; };
    std::stable_sort(window, window + (std::min(end, csr.out_features) - first),
                     [&](std::uint8_t a, std::uint8_t b) { return nnz(a) > nnz(b); });
  }
  return rows;
}

/// Calls `visit(cell, lane, i, count)` for the `count` nonzeros from `i` on that a row has in a cell.
template <class Visit>
void for_each_run(const CsrView& csr, const std::uint8_t* rows, const Visit& visit) {
  const std::int64_t tiles = padded_lanes(csr.out_features) / kLanes;
  for (std::int64_t position = 0; position < csr.out_features; ++position) {
    const std::int64_t r = window_of(position) + rows[position];
    std::int64_t i = csr.crow_indices[r];
    while (i < csr.crow_indices[r + 1]) {
      const std::int64_t block = csr.col_indices[i] / kBlockWidth;
      std::int64_t end = i + 1;
      while (end < csr.crow_indices[r + 1] && csr.col_indices[end] < (block + 1) * kBlockWidth) ++end;
      visit(block * tiles + position / kLanes, static_cast<unsigned>(position % kLanes), i, end - i);
      i = end;
    }
  }
}

/// The lanes of a cell by falling number of quads.
void order_lanes(const std::uint8_t* counts, std::uint8_t* order) {
  for (std::uint8_t lane = 0; lane < kLanes; ++lane) order[lane] = lane;
  const auto quads = [&](std::uint8_t lane) { return (counts[lane] + kQuad - 1) / kQuad; };
  std::stable_sort(order, order + kLanes, [&](std::uint8_t a, std::uint8_t b) { return quads(a) > quads(b); });
}

}  // namespace

void plan_quads(const CsrView& csr, PackPlan& plan) {
  // Every group holds a nonzero, so this bounds the groups too.
  if (csr.values_size > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 nonzeros, got " +
                                std::to_string(csr.values_size));
  }
  const std::int64_t cells = cell_count(csr.out_features, csr.in_features);
  plan.rows = sorted_rows(csr);
  auto& starts = plan.starts;
  starts.assign(static_cast<std::size_t>(cells + 1), 0);
  for_each_run(csr, plan.rows.data(), [&](std::int64_t cell, unsigned, std::int64_t, std::int64_t count) {
    auto& groups = starts[static_cast<std::size_t>(cell + 1)];
    groups = std::max(groups, static_cast<std::uint32_t>((count + kQuad - 1) / kQuad));
  });
  for (std::size_t s = 1; s < starts.size(); ++s) starts[s] += starts[s - 1];
}

void quads_fill(const CsrView& csr, const PackedArrays& arrays) {
  for_each_run(csr, arrays.rows, [&](std::int64_t cell, unsigned lane, std::int64_t first, std::int64_t count) {
    arrays.counts[cell * kLanes + lane] = static_cast<std::uint8_t>(count);
    const std::int64_t group = std::int64_t{arrays.starts[cell]} * kGroup;
    float* values = arrays.values + group + value_slot(lane);
    std::uint8_t* columns = arrays.columns + group + column_slot(lane);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = i / kQuad * kGroup + i % kQuad;
      values[at] = csr.values[first + i];
      columns[at] = static_cast<std::uint8_t>(csr.col_indices[first + i] % kBlockWidth);
    }
  });
  const std::int64_t cells = cell_count(csr.out_features, csr.in_features);
  for (std::int64_t cell = 0; cell < cells; ++cell) {
    order_lanes(arrays.counts + cell * kLanes, arrays.order + cell * kLanes);
  }
}

CsrArrays quads_unpack(const PackedWeight& weight, std::int64_t nnz) {
  std::vector<std::int64_t> position_of(static_cast<std::size_t>(weight.tiles() * kLanes));
  for (std::int64_t p = 0; p < weight.out_features; ++p) {
    position_of[static_cast<std::size_t>(window_of(p) + weight.rows[p])] = p;
  }
  CsrArrays csr = csr_with_capacity(weight.out_features, nnz);
  for (std::int64_t r = 0; r < weight.out_features; ++r) {
    const std::int64_t position = position_of[static_cast<std::size_t>(r)];
    const auto lane = static_cast<unsigned>(position % kLanes);
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      const std::int64_t cell = b * weight.tiles() + position / kLanes;
      const std::int64_t group = std::int64_t{weight.starts[cell]} * kGroup;
      for (std::int64_t i = 0; i < weight.counts[cell * kLanes + lane]; ++i) {
        const std::int64_t at = group + i / kQuad * kGroup + i % kQuad;
        const std::int64_t column = weight.columns[at + column_slot(lane)];
        csr.col_indices.push_back(static_cast<std::int32_t>(b * kBlockWidth + column));
        csr.values.push_back(weight.values[at + value_slot(lane)]);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

std::int64_t quads_work_before(const PackedWeight& weight, std::int64_t row) {
  std::int64_t groups = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint32_t* start = weight.starts + b * weight.tiles();
    groups += start[row / kLanes] - start[0];
  }
  return groups * kGroup;
}

}  // namespace sparsekit
