#include "sell_pairs.h"

#include <algorithm>
#include <utility>

namespace sparsekit {
namespace {

/// Columns that the row at a slot of the slice has in common with its neighbor.
std::size_t common_at(const ColumnSet* sets, const std::uint8_t* slot_to_row, std::int64_t slot) {
  return (sets[slot_to_row[slot]] & sets[slot_to_row[slot ^ 1]]).count();
}

/// Exchanges the rows at two slots where that leaves the poorer of their pairs more columns in common.
bool exchange(const ColumnSet* sets, std::uint8_t* slot_to_row, std::int64_t i, std::int64_t j) {
  const auto poorer = [&] { return std::min(common_at(sets, slot_to_row, i), common_at(sets, slot_to_row, j)); };
  const std::size_t before = poorer();
  std::swap(slot_to_row[i], slot_to_row[j]);
  if (poorer() > before) return true;
  std::swap(slot_to_row[i], slot_to_row[j]);
  return false;
}

}  // namespace

void pair_rows(const ColumnSet* sets, std::uint8_t* slot_to_row) {
  constexpr int kRounds = 4;  // of which the last hardly ever finds anything
  bool better = true;
  for (int round = 0; better && round < kRounds; ++round) {
    better = false;
    for (std::int64_t i = 0; i < kSlice; ++i) {
      const std::size_t entries = sets[slot_to_row[i]].count();
      if (entries < kQuad) break;  // no more can share a quad: the others have no more entries
      for (std::int64_t j = (i | 1) + 1; j < kSlice && sets[slot_to_row[j]].count() == entries; ++j) {
        better |= exchange(sets, slot_to_row, i, j);
      }
    }
  }
}

std::size_t shared_entries(const ColumnSet* sets, const std::uint8_t* slot_to_row) {
  std::size_t least = common_at(sets, slot_to_row, 0);
  for (std::int64_t p = 2; least >= kQuad && p < kSlice; p += 2)
    least = std::min(least, common_at(sets, slot_to_row, p));
  return least / kQuad * kQuad;
}

EntryOrder::EntryOrder(const ColumnSet& row, const ColumnSet& neighbor, std::size_t shared)
    : common_(row & neighbor), shared_(shared), rest_(shared) {}

}  // namespace sparsekit
