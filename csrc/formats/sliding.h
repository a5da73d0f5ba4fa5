// Sliding blocks: each begins half of its width after the one before, so that most input features lie in two of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "packed.h"

namespace sparsekit {

/// The lanes of a window in the order of their `weights`, most first.
template <class Weight>
void sort_lanes(const Weight* weights, std::uint8_t* lanes, std::int64_t size) {
  std::iota(lanes, lanes + size, std::uint8_t{0});
  std::stable_sort(lanes, lanes + size, [&](std::uint8_t a, std::uint8_t b) { return weights[a] > weights[b]; });
}

/// Fills `starts`, `counts`, `lanes` and `positions` of `plan`.
void plan_sliding(const CsrView& csr, std::int64_t height, const Cells& cells, PackPlan& plan);

}  // namespace sparsekit
