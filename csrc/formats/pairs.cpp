#include "pairs.h"

#include <algorithm>
#include <utility>

namespace sparsekit {
namespace {

/// Columns that the lane at a position of the tile has in common with its neighbour.
std::size_t common_at(const ColumnSet* sets, const std::uint8_t* lanes, std::int64_t position) {
  return (sets[lanes[position]] & sets[lanes[position ^ 1]]).count();
}

/// Exchanges the lanes at two positions where that leaves the poorer of their pairs more columns in common.
bool exchange(const ColumnSet* sets, std::uint8_t* lanes, std::int64_t i, std::int64_t j) {
  const auto poorer = [&] { return std::min(common_at(sets, lanes, i), common_at(sets, lanes, j)); };
  const std::size_t before = poorer();
  std::swap(lanes[i], lanes[j]);
  if (poorer() > before) return true;
  std::swap(lanes[i], lanes[j]);
  return false;
}

}  // namespace

void pair_lanes(const ColumnSet* sets, std::uint8_t* lanes) {
  constexpr int kRounds = 4;  // of which the last hardly ever finds anything
  bool better = true;
  for (int round = 0; better && round < kRounds; ++round) {
    better = false;
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::size_t entries = sets[lanes[i]].count();
      if (entries < kQuad) break;  // no more can share a quad: the others have no more entries
      for (std::int64_t j = (i | 1) + 1; j < kLanes && sets[lanes[j]].count() == entries; ++j) {
        better |= exchange(sets, lanes, i, j);
      }
    }
  }
}

std::size_t shared_entries(const ColumnSet* sets, const std::uint8_t* lanes) {
  std::size_t least = common_at(sets, lanes, 0);
  for (std::int64_t p = 2; least >= kQuad && p < kLanes; p += 2) least = std::min(least, common_at(sets, lanes, p));
  return least / kQuad * kQuad;
}

Places::Places(const ColumnSet& lane, const ColumnSet& neighbour, std::size_t shared)
    : common_(lane & neighbour), shared_(shared), rest_(shared) {}

}  // namespace sparsekit
