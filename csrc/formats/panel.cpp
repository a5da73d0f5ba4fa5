#include "panel.h"

#include <limits>
#include <stdexcept>

namespace sparsekit {

std::int64_t panel_cells(std::int64_t out_features, std::int64_t blocks) { return blocks * out_features; }

std::vector<std::uint32_t> panel_starts(const CsrView& csr) {
  if (csr.values_size > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 nonzeros, got " +
                                std::to_string(csr.values_size));
  }
  const std::int64_t rows = csr.out_features;
  const std::int64_t blocks = block_count(csr.in_features, kPanelBlockWidth);
  std::vector<std::uint32_t> starts(static_cast<std::size_t>(panel_cells(rows, blocks) + 1), 0);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      ++starts[static_cast<std::size_t>(csr.col_indices[i] / kPanelBlockWidth * rows + r + 1)];
    }
  }
  for (std::size_t s = 1; s < starts.size(); ++s) starts[s] += starts[s - 1];
  return starts;
}

void panel_fill(const CsrView& csr, const PackedArrays& arrays) {
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    std::int64_t block = -1;
    std::uint32_t next = 0;
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      const std::int64_t column = csr.col_indices[i];
      if (column / kPanelBlockWidth != block) {
        block = column / kPanelBlockWidth;
        next = arrays.starts[block * csr.out_features + r];
      }
      arrays.values[next] = csr.values[i];
      arrays.columns[next++] = static_cast<std::uint8_t>(column % kPanelBlockWidth);
    }
  }
}

CsrArrays panel_unpack(const PackedWeight& weight, std::int64_t nnz) {
  CsrArrays csr = csr_with_capacity(weight.out_features, nnz);
  for (std::int64_t r = 0; r < weight.out_features; ++r) {
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      const std::uint32_t* start = weight.starts + b * weight.out_features + r;
      for (std::uint32_t i = start[0]; i < start[1]; ++i) {
        csr.col_indices.push_back(static_cast<std::int32_t>(b * weight.block_width + weight.columns[i]));
        csr.values.push_back(weight.values[i]);
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

std::int64_t panel_work_before(const PackedWeight& weight, std::int64_t row) {
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint32_t* start = weight.starts + b * weight.out_features;
    count += start[row] - start[0];
  }
  return count;
}

}  // namespace sparsekit
