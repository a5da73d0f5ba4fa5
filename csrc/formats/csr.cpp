#include "csr.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

std::string text(std::int64_t n) { return std::to_string(n); }

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void check_lengths(const CsrView& csr) {
  if (csr.crow_size - 1 != csr.out_features) {
    refuse("crow_indices must have out_features + 1 = " + text(csr.out_features + 1) + " entries, got " +
           text(csr.crow_size) + "; build it with CSR.from_dense()");
  }
  if (csr.col_size != csr.values_size) {
    refuse("col_indices and values must have one entry per nonzero, got " + text(csr.col_size) + " and " +
           text(csr.values_size));
  }
}

void check_rows(const CsrView& csr) {
  const std::int64_t* crow = csr.crow_indices;
  if (crow[0] != 0) refuse("crow_indices must start at 0, got " + text(crow[0]));
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    if (crow[r + 1] < crow[r]) {
      refuse("crow_indices must never fall, got " + text(crow[r]) + " then " + text(crow[r + 1]) + " at row " +
             text(r));
    }
  }
  if (crow[csr.out_features] != csr.values_size) {
    refuse("crow_indices must end at nnz = " + text(csr.values_size) + ", got " + text(crow[csr.out_features]));
  }
}

void check_columns(const CsrView& csr) {
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    std::int64_t previous = -1;
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      const std::int64_t column = csr.col_indices[i];
      if (column < 0 || column >= csr.in_features) {
        refuse("col_indices must be in [0, in_features) = [0, " + text(csr.in_features) + "), got " + text(column) +
               " in row " + text(r));
      }
      if (column <= previous) {
        refuse("col_indices must rise strictly within a row, got " + text(previous) + " then " + text(column) +
               " in row " + text(r) + "; sort the columns and sum duplicates first");
      }
      previous = column;
    }
  }
}

}  // namespace

std::int64_t checked_size(std::int64_t out_features, std::int64_t in_features) {
  if (out_features < 0 || in_features < 0) {
    refuse("out_features and in_features must not be negative, got " + text(out_features) + " and " +
           text(in_features));
  }
  if (out_features == std::numeric_limits<std::int64_t>::max()) {
    refuse("out_features + 1 must fit in 63 bits, got out_features = " + text(out_features));
  }
  if (in_features > std::numeric_limits<std::int32_t>::max()) {
    refuse("in_features must fit in 32 bits, got " + text(in_features));
  }
  if (in_features > 0 && out_features > std::numeric_limits<std::int64_t>::max() / in_features) {
    refuse("out_features * in_features must fit in 63 bits, got " + text(out_features) + " * " + text(in_features));
  }
  return out_features * in_features;
}

void validate(const CsrView& csr) {
  checked_size(csr.out_features, csr.in_features);
  check_lengths(csr);
  check_rows(csr);
  check_columns(csr);
}

CsrArrays csr_with_capacity(std::int64_t out_features, std::int64_t nnz) {
  CsrArrays csr;
  csr.crow_indices.reserve(static_cast<std::size_t>(out_features) + 1);
  csr.col_indices.reserve(static_cast<std::size_t>(nnz));
  csr.values.reserve(static_cast<std::size_t>(nnz));
  csr.crow_indices.push_back(0);
  return csr;
}

CsrArrays csr_from_dense(const float* dense, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t size = checked_size(out_features, in_features);
  const auto nnz = static_cast<std::size_t>(size - std::count(dense, dense + size, 0.0F));
  CsrArrays csr = csr_with_capacity(out_features, 0);
  // Every number is written, also where the next one takes its place: no branch that random zeros make a guess. Numbers
  // that someone else changes meanwhile give wrong entries, but no row more than there is room for.
  const std::size_t room = nnz + static_cast<std::size_t>(in_features);
  csr.col_indices.resize(room);
  csr.values.resize(room);
  std::size_t found = 0;
  for (std::int64_t r = 0; r < out_features; ++r) {
    const float* row = dense + r * in_features;
    for (std::int64_t c = 0; c < in_features; ++c) {
      csr.col_indices[found] = static_cast<std::int32_t>(c);
      csr.values[found] = row[c];
      found += row[c] == 0.0F ? 0 : 1;
    }
    found = std::min(found, nnz);
    csr.crow_indices.push_back(static_cast<std::int64_t>(found));
  }
  csr.col_indices.resize(found);
  csr.values.resize(found);
  return csr;
}

void csr_to_dense(const CsrView& csr, float* dense) {
  std::fill(dense, dense + csr.out_features * csr.in_features, 0.0F);
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      dense[r * csr.in_features + csr.col_indices[i]] = csr.values[i];
    }
  }
}

}  // namespace sparsekit
