// Neighboring rows that share inputs: a kernel loads the inputs of a shared quad once for both.
//
// How many quads are shared is the same for all pairs of a slice, and the order by entries is kept: a loop whose end is
// not foreseen costs as much as a dozen entries.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>

#include "../kernels/packed_weight.h"

namespace sparsekit {

/// The columns of a column block that a row has entries in.
using ColumnSet = std::bitset<static_cast<std::size_t>(kColumnBlock)>;

/// Exchanges rows of a slice that have equally many entries, so that the pair of neighbors with the fewest columns in
/// common has more. `sets` are those of the sort window that `slot_to_row` counts from.
void pair_rows(const ColumnSet* sets, std::uint8_t* slot_to_row);

/// Entries that every pair of a slice shares, in whole quads.
std::size_t shared_entries(const ColumnSet* sets, const std::uint8_t* slot_to_row);

/// Where the entries of a row are among themselves: first `shared` of those in columns that the row has in common
/// with its neighbor, then the others, both in ascending order.
class EntryOrder {
 public:
  /// In ascending order, nothing shared.
  EntryOrder() = default;
  EntryOrder(const ColumnSet& row, const ColumnSet& neighbor, std::size_t shared);

  /// The place of the entry in `column`; to be asked in ascending order.
  std::size_t next(std::size_t column) {
    const bool early = common_[column] && first_ < shared_;
    return early ? first_++ : rest_++;
  }

 private:
  ColumnSet common_;
  std::size_t shared_ = 0;
  std::size_t first_ = 0;
  std::size_t rest_ = 0;
};

}  // namespace sparsekit
