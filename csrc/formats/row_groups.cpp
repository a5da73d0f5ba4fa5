#include "row_groups.h"

#include <algorithm>
#include <cmath>
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

void check_scaled_rows(const CsrView& csr, const std::vector<float>& scales, DType dtype) {
  if (dtype_entry(csr.dtype).scaled) return;  // as validated
  const std::int64_t each = csr.out_features == 0 ? 0 : static_cast<std::int64_t>(scales.size()) / csr.out_features;
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    const std::string where = " in row " + std::to_string(row);
    const float* last = csr.values_as<float>() + csr.crow_indices[row + 1];
    const float* wrong =
        std::find_if(csr.values_as<float>() + csr.crow_indices[row], last, [](float v) { return !std::isfinite(v); });
    if (wrong != last) {
      throw std::invalid_argument(std::string(dtype_entry(dtype).name) + " values must be finite, got " +
                                  std::to_string(*wrong) + where);
    }
    const float* first = scales.data() + row * each;
    const float* bad = std::find_if(first, first + each, [](float s) { return !(s > 0.0F && std::isfinite(s)); });
    if (bad != first + each) {
      throw std::invalid_argument("scales must be positive and finite, got " + std::to_string(*bad) + where);
    }
  }
}

}  // namespace sparsekit
