#include "dense.h"

#include "row_groups.h"
#include "values.h"

namespace sparsekit {
namespace {

template <class Source, class Value>
void fill_from(const CsrView& csr, const PackPlan& plan, Value* values) {
  const PackedShape shape = shape_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    const float scale = plan.scales.empty() ? 1.0F : plan.scales[static_cast<std::size_t>(row)];
    for (std::int64_t i = csr.crow_indices[row]; i < csr.crow_indices[row + 1]; ++i) {
      values[dense_place<Value>(shape, row, csr.col_indices[i])] = stored<Value>(csr.values_as<Source>()[i], scale);
    }
  }
}

}  // namespace

template <class Value>
void fill_dense(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t*) {
  auto* typed = reinterpret_cast<Value*>(values);
  if (csr.dtype == kDType<Value>) {
    fill_from<Value>(csr, plan, typed);
  } else {
    fill_from<float>(csr, plan, typed);
  }
}

template <class Value>
AnyCsrArrays unpack_dense(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const Value*>(weight.values);
  auto csr = csr_with_capacity<Value>(weight.out_features, nnz);
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    for (std::int64_t column = 0; column < weight.in_features; ++column) {
      const Value value = values[dense_place<Value>(weight, row, column)];
      if (to_float(value) == 0.0F) continue;
      csr.col_indices.push_back(static_cast<std::int32_t>(column));
      csr.values.push_back(value);
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

#define SPARSEKIT_DENSE(Value)                                                                 \
  template void fill_dense<Value>(const CsrView&, const PackPlan&, std::byte*, std::uint8_t*); \
  template AnyCsrArrays unpack_dense<Value>(const PackedWeight&, std::int64_t);
SPARSEKIT_DENSE(float)
SPARSEKIT_DENSE(BFloat16)
SPARSEKIT_DENSE(Float16)
SPARSEKIT_DENSE(std::int8_t)
#undef SPARSEKIT_DENSE

}  // namespace sparsekit
