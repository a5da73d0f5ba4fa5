#include "check_dense.h"

#include "damaged.h"
#include "dense.h"
#include "sell.h"

namespace sparsekit {
namespace {

void check_row_sum(const PackedWeight& weight, std::int64_t row) {
  const auto* values = static_cast<const std::int8_t*>(weight.values);
  std::int64_t nonzeros = 0;
  std::int64_t sum = 0;
  for (std::int64_t column = 0; column < weight.padded_features(); ++column) {
    const std::int8_t value = values[dense_place<std::int8_t>(weight, row, column)];
    if (value == -128) refuse_packed("int8 values must be from -127 to 127, got -128");
    nonzeros += value != 0 ? 1 : 0;
    sum += value;
  }
  if (nonzeros > kMaxInt8Nnz) {
    refuse_packed("int8 values allow " + std::to_string(kMaxInt8Nnz) + " nonzeros a row, got " +
                  std::to_string(nonzeros));
  }
  if (sum != weight.row_sums[row]) refuse_packed("another sum of int8 values in row " + std::to_string(row));
}

}  // namespace

void check_dense_s8(const PackedWeight& weight) {
  for (std::int64_t row = 0; row < weight.out_features; ++row) check_row_sum(weight, row);
}

}  // namespace sparsekit
