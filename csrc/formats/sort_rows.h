// The order of rows within a sort window.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace sparsekit {

/// The rows of a sort window in the order of their `lengths`, most first.
template <class Length>
void sort_rows(const Length* lengths, std::uint8_t* slot_to_row, std::int64_t size) {
  std::iota(slot_to_row, slot_to_row + size, std::uint8_t{0});
  std::stable_sort(slot_to_row, slot_to_row + size,
                   [&](std::uint8_t a, std::uint8_t b) { return lengths[a] > lengths[b]; });
}

}  // namespace sparsekit
