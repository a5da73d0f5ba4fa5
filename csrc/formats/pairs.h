// Neighbouring lanes that share inputs: a kernel loads the inputs of a shared quad once for both.
//
// How many quads are shared is the same for all pairs of a cell, and the order by entries is kept: a loop whose end is
// not foreseen costs as much as a dozen entries.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>

#include "../kernels/views.h"

namespace sparsekit {

/// The columns of a block that a lane has entries in.
using ColumnSet = std::bitset<static_cast<std::size_t>(kBlockWidth)>;

/// Exchanges lanes of a tile that have equally many entries, so that the pair of neighbours with the fewest columns in
/// common has more. `sets` are those of the window that `lanes` count from.
void pair_lanes(const ColumnSet* sets, std::uint8_t* lanes);

/// Entries that every pair of a tile shares, in whole quads.
std::size_t shared_entries(const ColumnSet* sets, const std::uint8_t* lanes);

/// Where the entries of a lane are among themselves: first `shared` of those in columns that the lane has in common
/// with its neighbour, then the others, both in ascending order.
class Places {
 public:
  /// In ascending order, nothing shared.
  Places() = default;
  Places(const ColumnSet& lane, const ColumnSet& neighbour, std::size_t shared);

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
