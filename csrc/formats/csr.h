// Compressed sparse rows: conversion from and to dense, and validation of untrusted arrays.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "dtypes.h"

namespace sparsekit {

/// CSR arrays owned elsewhere. `values[i]` stands at column `col_indices[i]` of the row `r` for which
/// `crow_indices[r] <= i < crow_indices[r + 1]`.
struct CsrView {
  const std::int64_t* crow_indices;
  std::int64_t crow_size;
  const std::int32_t* col_indices;
  std::int64_t col_size;
  const void* values;  // of type `dtype`
  std::int64_t values_size;
  std::int64_t out_features;
  std::int64_t in_features;
  DType dtype = DType::float32;
  const float* scales = nullptr;  // of int8 values: [out_features], of int4: [out_features, groups]
  std::int64_t scales_size = 0;

  /// Scales of a row.
  std::int64_t row_scales() const { return dtype == DType::int4 ? groups_of(in_features) : 1; }

  /// Index of the scale of a value.
  std::int64_t scale_index(std::int64_t row, std::int64_t column) const {
    return dtype == DType::int4 ? row * groups_of(in_features) + column / kGroup : row;
  }

  template <class Value>
  const Value* values_as() const {
    return static_cast<const Value*>(values);
  }
};

/// Throws std::invalid_argument, saying what was expected and found, unless the arrays are a well-formed CSR matrix:
/// `crow_indices` starts at 0, never falls and ends at nnz; columns rise strictly within a row and are in range; int8
/// values are from -127 to 127, int4 from -8 to 7, and their scales are positive and leave them finite.
void validate(const CsrView& csr);

template <class Value>
struct CsrArraysOf {
  std::vector<std::int64_t> crow_indices;
  std::vector<std::int32_t> col_indices;
  std::vector<Value> values;
};
using CsrArrays = CsrArraysOf<float>;
using AnyCsrArrays = std::variant<CsrArraysOf<float>, CsrArraysOf<BFloat16>, CsrArraysOf<Float16>,
                                  CsrArraysOf<std::int8_t>, CsrArraysOf<Int4>>;

/// Empty arrays with room for a matrix of this size; `crow_indices` holds its first 0.
template <class Value>
CsrArraysOf<Value> csr_with_capacity(std::int64_t out_features, std::int64_t nnz) {
  CsrArraysOf<Value> csr;
  csr.crow_indices.reserve(static_cast<std::size_t>(out_features) + 1);
  csr.col_indices.reserve(static_cast<std::size_t>(nnz));
  csr.values.reserve(static_cast<std::size_t>(nnz));
  csr.crow_indices.push_back(0);
  return csr;
}

/// `scales`: of int8 and int4 values.
CsrView view_of(const AnyCsrArrays& arrays, std::int64_t out_features, std::int64_t in_features,
                const float* scales = nullptr);

/// The values as floats, [nnz]: those of int8 and int4 times their scales.
std::vector<float> float_values(const CsrView& csr);

/// Keeps every entry that does not compare equal to zero (NaN is kept). `dense` is row-major
/// `[out_features, in_features]`.
CsrArrays csr_from_dense(const float* dense, std::int64_t out_features, std::int64_t in_features);

/// Writes the matrix to `dense`, row-major `[out_features, in_features]`.
void csr_to_dense(const CsrView& csr, float* dense);

/// `out_features * in_features`; throws std::invalid_argument for a negative size, more than 2^31 - 1 input features
/// or a product beyond 63 bits.
std::int64_t checked_size(std::int64_t out_features, std::int64_t in_features);

/// Calls `body` with the values in their own type.
template <class Body>
auto with_values(const CsrView& csr, const Body& body) {
  switch (csr.dtype) {
    case DType::bfloat16:
      return body(csr.values_as<BFloat16>());
    case DType::float16:
      return body(csr.values_as<Float16>());
    case DType::int8:
      return body(csr.values_as<std::int8_t>());
    case DType::int4:
      return body(csr.values_as<Int4>());
    default:
      return body(csr.values_as<float>());
  }
}

}  // namespace sparsekit
