#include "row_groups.h"

#include <stdexcept>
#include <string>

namespace sparsekit {

void check_row_groups(const CsrView& csr, std::int64_t height) {
  for (std::int64_t row = 0; height > 1 && row < csr.out_features; ++row) {
    const std::int64_t first = row / height * height;
    const std::int32_t* columns = csr.col_indices + csr.crow_indices[row];
    const std::int32_t* wanted = csr.col_indices + csr.crow_indices[first];
    if (!std::equal(columns, csr.col_indices + csr.crow_indices[row + 1], wanted,
                    csr.col_indices + csr.crow_indices[first + 1])) {
      throw std::invalid_argument("blocks of " + std::to_string(height) + "x1 must be full, but the rows " +
                                  std::to_string(first) + " and " + std::to_string(row) +
                                  " have entries in different columns");
    }
  }
}

}  // namespace sparsekit
