#include "sliding.h"

#include <algorithm>
#include <vector>

namespace sparsekit {
namespace {

/// The entries of a lane that no block has taken yet.
struct Left {
  const std::int32_t* first;
  const std::int32_t* last;

  /// How many of them have columns below `limit`.
  std::int64_t below(std::int64_t limit) const {
    return std::find_if(first, last, [&](std::int32_t column) { return column >= limit; }) - first;
  }
};

Left all_of(const CsrView& csr, std::int64_t height, std::int64_t lane) {
  const std::int64_t row = lane * height;
  if (row >= csr.out_features) return {nullptr, nullptr};
  return {csr.col_indices + csr.crow_indices[row], csr.col_indices + csr.crow_indices[row + 1]};
}

/// One order of lanes for all blocks.
void order_lanes(const std::vector<std::int64_t>& weights, PackPlan& plan) {
  const auto lanes = static_cast<std::int64_t>(weights.size());
  for (std::int64_t first = 0; first < lanes; first += kWindow) {
    const std::int64_t size = std::min(kWindow, lanes - first);
    std::uint8_t* order = plan.lanes.data() + first;
    sort_lanes(weights.data() + first, order, size);
    for (std::int64_t p = 0; p < size; ++p) {
      plan.positions[static_cast<std::size_t>(first + order[p])] = static_cast<std::uint8_t>(p);
    }
  }
}

/// Takes as many groups for the cell as its longest lane needs: those of its entries that do not lie in the next block
/// too. The other lanes fill theirs with entries that do.
void plan_cell(const Cells& cells, std::int64_t block, Left (&lanes)[kLanes], std::uint8_t* counts, PackPlan& plan) {
  const std::int64_t end = cells.start(block) + kBlockWidth;
  const std::int64_t next = block + 1 == cells.blocks ? end : cells.start(block + 1);
  std::int64_t most = 0;
  for (const Left& lane : lanes) most = std::max(most, lane.below(next));
  const std::int64_t groups = (most + kQuad - 1) / kQuad;
  for (Left& lane : lanes) {
    const std::int64_t count = std::min(lane.below(end), groups * kQuad);
    lane.first += count;
    *counts++ = static_cast<std::uint8_t>(count);
  }
  plan.starts.push_back(plan.starts.back() + static_cast<std::uint32_t>(groups));
}

}  // namespace

void plan_sliding(const CsrView& csr, std::int64_t height, const Cells& cells, PackPlan& plan) {
  std::vector<Left> lanes;
  std::vector<std::int64_t> weights;
  for (std::int64_t l = 0; l < cells.tiles * kLanes; ++l) {
    lanes.push_back(all_of(csr, height, l));
    weights.push_back(lanes.back().last - lanes.back().first);
  }
  plan.lanes.resize(lanes.size());
  plan.positions.resize(lanes.size());
  plan.counts.resize(lanes.size() * static_cast<std::size_t>(cells.blocks));
  order_lanes(weights, plan);
  for (std::int64_t t = 0; t < cells.tiles; ++t) {
    Left tile[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t position = t * kLanes + i;
      tile[i] = lanes[static_cast<std::size_t>(window_of(position) + plan.lanes[static_cast<std::size_t>(position)])];
    }
    for (std::int64_t b = 0; b < cells.blocks; ++b) {
      plan_cell(cells, b, tile, plan.counts.data() + cells.at(b, t * kLanes), plan);
    }
  }
}

}  // namespace sparsekit
