// Compressed sparse rows: conversion from and to dense, and the check that everything from outside passes.
#pragma once

#include <cstdint>
#include <vector>

namespace sparsekit {

/// CSR arrays owned elsewhere. `values[i]` stands at column `col_indices[i]` of the row `r` for which
/// `crow_indices[r] <= i < crow_indices[r + 1]`.
struct CsrView {
  const std::int64_t* crow_indices;
  std::int64_t crow_size;
  const std::int32_t* col_indices;
  std::int64_t col_size;
  const float* values;
  std::int64_t values_size;
  std::int64_t out_features;
  std::int64_t in_features;
};

/// Throws std::invalid_argument, saying what was expected and found, unless the arrays are a well-formed CSR matrix:
/// `crow_indices` starts at 0, never falls and ends at nnz; columns rise strictly within a row and are in range.
void validate(const CsrView& csr);

struct CsrArrays {
  std::vector<std::int64_t> crow_indices;
  std::vector<std::int32_t> col_indices;
  std::vector<float> values;
};

/// Empty arrays with room for a matrix of this size; `crow_indices` holds its first 0.
CsrArrays csr_with_capacity(std::int64_t out_features, std::int64_t nnz);

/// Keeps every entry that does not compare equal to zero (so NaN stays). `dense` is row-major
/// `[out_features, in_features]`.
CsrArrays csr_from_dense(const float* dense, std::int64_t out_features, std::int64_t in_features);

/// Writes the matrix to `dense`, row-major `[out_features, in_features]`.
void csr_to_dense(const CsrView& csr, float* dense);

/// `out_features * in_features`; throws std::invalid_argument for a negative size, more than 2^31 - 1 input features
/// or a product beyond 63 bits.
std::int64_t checked_size(std::int64_t out_features, std::int64_t in_features);

}  // namespace sparsekit
