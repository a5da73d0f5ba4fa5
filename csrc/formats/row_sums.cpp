#include "row_sums.h"

#include <stdexcept>
#include <string>

#include "packed.h"
#include "sell.h"
#include "values.h"

namespace sparsekit {
namespace {

void check_sums_fit(const CsrView& csr, std::int64_t row) {
  const std::int64_t nnz = csr.crow_indices[row + 1] - csr.crow_indices[row];
  if (nnz > kMaxInt8Nnz) {
    throw std::invalid_argument("int8 values allow " + std::to_string(kMaxInt8Nnz) + " nonzeros a row, got " +
                                std::to_string(nnz) + " in row " + std::to_string(row));
  }
}

}  // namespace

std::vector<std::int32_t> row_sums_of(const CsrView& csr, const std::vector<float>& scales) {
  std::vector<std::int32_t> sums;
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    check_sums_fit(csr, r);
    const float scale = scales[static_cast<std::size_t>(r)];
    std::int32_t sum = 0;
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      sum += csr.dtype == DType::int8 ? csr.values_as<std::int8_t>()[i] : quantize(csr.values_as<float>()[i], scale);
    }
    sums.push_back(sum);
  }
  return sums;
}

}  // namespace sparsekit
