#include "lanes.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace sparsekit {
namespace {

/// Calls `visit(cell, lane, position, i)` for every nonzero `i`, the `position`-th of its row in the cell (a tile's
/// block).
template <class Visit>
void for_each_nonzero(const CsrView& csr, Visit&& visit) {
  const std::int64_t blocks = block_count(csr.in_features, kLanesBlockWidth);
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    std::int64_t block = -1;
    std::int64_t position = 0;
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      const std::int64_t now = csr.col_indices[i] / kLanesBlockWidth;
      position = now == block ? position + 1 : 0;
      block = now;
      visit(r / kLanes * blocks + block, r % kLanes, position, i);
    }
  }
}

}  // namespace

std::int64_t lanes_cells(std::int64_t out_features, std::int64_t blocks) {
  return padded_lanes(out_features) / kLanes * blocks;
}

std::vector<std::uint32_t> lanes_starts(const CsrView& csr) {
  const std::int64_t cells = lanes_cells(csr.out_features, block_count(csr.in_features, kLanesBlockWidth));
  std::vector<std::uint32_t> starts(static_cast<std::size_t>(cells + 1), 0);
  for_each_nonzero(csr, [&](std::int64_t cell, std::int64_t, std::int64_t position, std::int64_t) {
    auto& steps = starts[static_cast<std::size_t>(cell + 1)];
    steps = std::max(steps, static_cast<std::uint32_t>(position + 1));
  });
  std::uint64_t total = 0;
  for (auto& start : starts) {
    total += start;
    start = static_cast<std::uint32_t>(total);
  }
  if (total * kLanes > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 entries, this one needs " +
                                std::to_string(total * kLanes) + " with padding");
  }
  return starts;
}

void lanes_fill(const CsrView& csr, const PackedArrays& arrays) {
  for_each_nonzero(csr, [&](std::int64_t cell, std::int64_t lane, std::int64_t position, std::int64_t i) {
    const std::int64_t entry = (arrays.starts[cell] + position) * kLanes + lane;
    arrays.values[entry] = csr.values[i];
    arrays.columns[entry] = static_cast<std::uint8_t>(csr.col_indices[i] % kLanesBlockWidth | kRealEntry);
    ++arrays.counts[cell * kLanes + lane];
  });
}

CsrArrays lanes_unpack(const PackedWeight& weight, std::int64_t nnz) {
  CsrArrays csr = csr_with_capacity(weight.out_features, nnz);
  for (std::int64_t r = 0; r < weight.out_features; ++r) {
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      const std::int64_t cell = r / kLanes * weight.blocks + b;
      for (std::int64_t s = 0; s < weight.counts[cell * kLanes + r % kLanes]; ++s) {
        const std::int64_t entry = (weight.starts[cell] + s) * kLanes + r % kLanes;
        csr.col_indices.push_back(
            static_cast<std::int32_t>(b * weight.block_width + (weight.columns[entry] & kColumnMask)));
        csr.values.push_back(weight.values[entry]);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

std::int64_t lanes_work_before(const PackedWeight& weight, std::int64_t row) {
  return std::int64_t{weight.starts[row / kLanes * weight.blocks]} * kLanes;
}

}  // namespace sparsekit
