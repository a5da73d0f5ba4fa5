// The row groups of a sort window, read column block by column block, while a weight is packed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "csr.h"
#include "sell_pairs.h"

namespace sparsekit {

/// Where the entries of each row group begin, those of its first row, and which columns they are in. Packing holds no
/// more than this of a weight besides the CSR and the packed one.
struct SortWindow {
  std::int64_t first[kSortWindow];
  std::int64_t last[kSortWindow];
  std::int64_t end[kSortWindow];  // of all entries
  ColumnSet sets[kSortWindow];

  /// Before the first column block, for `size` row groups from `start` on.
  SortWindow(const CsrView& csr, std::int64_t height, std::int64_t start, std::int64_t size) {
    for (std::int64_t g = 0; g < size; ++g) {
      const std::int64_t row = std::min((start + g) * height, csr.out_features);
      last[g] = csr.crow_indices[row];
      end[g] = csr.crow_indices[std::min(row + 1, csr.out_features)];
    }
  }

  /// Goes on to the next entries of row group `g`: those in columns below `limit`. Returns their number.
  std::int64_t advance_to(const CsrView& csr, std::int64_t g, std::int64_t limit) {
    first[g] = last[g];
    while (last[g] < end[g] && csr.col_indices[last[g]] < limit) ++last[g];
    return last[g] - first[g];
  }

  /// Goes on to the next `count` entries of row group `g`. Too many rows are read in turn for the hardware prefetcher.
  void advance_by(const CsrView& csr, std::int64_t g, std::int64_t count) {
    first[g] = last[g];
    last[g] += count;
    prefetch_after(csr.col_indices + last[g]);
    prefetch_after(csr.values_as<char>() + last[g] * dtype_entry(csr.dtype).bytes);
  }

  /// The columns that the row group has entries in, in the column block that begins at `start`.
  void find_columns(const CsrView& csr, std::int64_t g, std::int64_t start) {
    sets[g].reset();
    for (std::int64_t i = first[g]; i < last[g]; ++i) {
      sets[g][static_cast<std::size_t>(csr.col_indices[i] - start)] = true;
    }
  }

 private:
  /// Prefetches the next cache line, which may be past the end of the array.
  static void prefetch_after(const void* p) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + 64));
  }
};

}  // namespace sparsekit
