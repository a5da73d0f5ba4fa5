#include "blocks.h"

#include <algorithm>

namespace sparsekit {
namespace {

/// Distinct columns of rows `first` to `last`, sorted.
void join_columns(const CsrView& csr, std::int64_t first, std::int64_t last, std::vector<std::int32_t>& columns) {
  columns.assign(csr.col_indices + csr.crow_indices[first], csr.col_indices + csr.crow_indices[last]);
  if (last - first > 1) {
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  }
}

/// Whether the rows after `first` have entries in the same columns as `first`.
bool same_columns(const CsrView& csr, std::int64_t first, std::int64_t last) {
  const std::int64_t* crow = csr.crow_indices;
  for (std::int64_t row = first + 1; row < last; ++row) {
    if (!std::equal(csr.col_indices + crow[first], csr.col_indices + crow[first + 1], csr.col_indices + crow[row],
                    csr.col_indices + crow[row + 1])) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::int64_t full_block_entries(const CsrView& csr, std::int64_t height, double least_full) {
  std::vector<std::int32_t> columns;
  std::int64_t entries = 0;
  std::int64_t blocks = 0;
  for (std::int64_t row = 0; row < csr.out_features; row += height) {
    const std::int64_t last = std::min(row + height, csr.out_features);
    const std::int64_t seen = csr.crow_indices[last];
    std::int64_t group_blocks = csr.crow_indices[row + 1] - csr.crow_indices[row];
    if (!same_columns(csr, row, last)) {
      join_columns(csr, row, last, columns);
      group_blocks = static_cast<std::int64_t>(columns.size());
    }
    entries += group_blocks * (last - row);
    blocks += group_blocks;
    const std::int64_t least_places = blocks * height + csr.values_size - seen;  // of the blocks of all rows
    if (static_cast<double>(csr.values_size) < least_full * static_cast<double>(least_places)) return -1;
  }
  return entries;
}

AnyCsrArrays with_full_blocks(const CsrView& csr, std::int64_t height, std::int64_t entries) {
  return with_values(csr, [&]<class Value>(const Value* values) -> AnyCsrArrays {
    auto full = csr_with_capacity<Value>(csr.out_features, entries);
    std::vector<std::int32_t> columns;
    for (std::int64_t row = 0; row < csr.out_features; ++row) {
      const std::int64_t first = row / height * height;
      if (row == first) join_columns(csr, first, std::min(first + height, csr.out_features), columns);
      std::int64_t i = csr.crow_indices[row];
      for (const std::int32_t column : columns) {
        const bool there = i < csr.crow_indices[row + 1] && csr.col_indices[i] == column;
        full.col_indices.push_back(column);
        full.values.push_back(there ? values[i] : Value{});
        if (there) ++i;
      }
      full.crow_indices.push_back(static_cast<std::int64_t>(full.values.size()));
    }
    return full;
  });
}

}  // namespace sparsekit
