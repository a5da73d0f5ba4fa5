#include "check_dense.h"

#include "damaged.h"
#include "dense.h"
#include "sell.h"
#include "values.h"

namespace sparsekit {
namespace {

template <class Value>
void check_panels(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  std::int64_t nonzeros = 0;
  for (std::int64_t row = 0; row < weight.slices * kSlice; ++row) {
    for (std::int64_t column = 0; column < weight.padded_features(); ++column) {
      if (to_float(values[dense_place<Value>(weight, row, column)]) == 0.0F) continue;
      ++nonzeros;
      if (row >= weight.out_features || column >= weight.in_features) {
        refuse_packed("a value that its " + std::to_string(weight.out_features) + " x " +
                      std::to_string(weight.in_features) + " features do not have");
      }
    }
  }
  if (nonzeros > nnz) {
    refuse_packed("it must have " + std::to_string(nnz) + " nonzeros at most, got " + std::to_string(nonzeros));
  }
}

void check_row_sum(const PackedWeight& weight, std::int64_t row) {
  const auto* values = static_cast<const std::int8_t*>(weight.values);
  std::int64_t nonzeros = 0;
  std::int64_t sum = 0;
  for (std::int64_t column = 0; column < weight.in_features; ++column) {
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

void check_dense(const PackedWeight& weight, const LayoutEntry& layout, std::int64_t nnz) {
  switch (layout.dtype) {
    case DType::float32:
      return check_panels<float>(weight, nnz);
    case DType::bfloat16:
      return check_panels<BFloat16>(weight, nnz);
    case DType::float16:
      return check_panels<Float16>(weight, nnz);
    case DType::int8:
      check_panels<std::int8_t>(weight, nnz);
      for (std::int64_t row = 0; row < weight.out_features; ++row) check_row_sum(weight, row);
  }
}

}  // namespace sparsekit
