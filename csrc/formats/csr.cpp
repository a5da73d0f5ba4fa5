#include "csr.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "values.h"

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

void check_scales_of(const CsrView& csr) {
  const std::int64_t each = csr.row_scales();
  if (csr.scales_size != csr.out_features * each) {
    const bool rows = csr.dtype == DType::int8;
    refuse(rows ? "scales must have shape [out_features] = [" + text(csr.out_features) + "], got [" +
                      text(csr.scales_size) + "]"
                : "scales must have shape [out_features, groups] = [" + text(csr.out_features) + ", " + text(each) +
                      "], got " + text(csr.scales_size) + " of them");
  }
  for (std::int64_t i = 0; i < csr.scales_size; ++i) {
    if (!(csr.scales[i] > 0.0F && std::isfinite(csr.scales[i] * 127.0F))) {
      refuse("scales must be positive and finite, as 127 times them, got " + std::to_string(csr.scales[i]) +
             " in row " + text(i / each));
    }
  }
}

void check_int4(const CsrView& csr) {
  const auto* values = csr.values_as<Int4>();
  const auto* wrong = std::find_if(values, values + csr.values_size, [](Int4 v) { return v.code < -8 || v.code > 7; });
  if (wrong != values + csr.values_size) refuse("int4 values must be from -8 to 7, got " + text(wrong->code));
}

void check_int8(const CsrView& csr) {
  const auto* values = csr.values_as<std::int8_t>();
  if (std::find(values, values + csr.values_size, std::int8_t{-128}) != values + csr.values_size) {
    refuse("int8 values must be from -127 to 127, got -128");
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
  if (dtype_entry(csr.dtype).scaled) check_scales_of(csr);
  if (csr.dtype == DType::int8) check_int8(csr);
  if (csr.dtype == DType::int4) check_int4(csr);
}

CsrView view_of(const AnyCsrArrays& arrays, std::int64_t out_features, std::int64_t in_features, const float* scales) {
  return std::visit(
      [&](const auto& csr) -> CsrView {
        using Value = typename std::decay_t<decltype(csr.values)>::value_type;
        CsrView view{.crow_indices = csr.crow_indices.data(),
                     .crow_size = static_cast<std::int64_t>(csr.crow_indices.size()),
                     .col_indices = csr.col_indices.data(),
                     .col_size = static_cast<std::int64_t>(csr.col_indices.size()),
                     .values = csr.values.data(),
                     .values_size = static_cast<std::int64_t>(csr.values.size()),
                     .out_features = out_features,
                     .in_features = in_features,
                     .dtype = kDType<Value>,
                     .scales = scales};
        if (scales != nullptr) view.scales_size = out_features * view.row_scales();
        return view;
      },
      arrays);
}

std::vector<float> float_values(const CsrView& csr) {
  std::vector<float> floats(static_cast<std::size_t>(csr.values_size));
  with_values(csr, [&](const auto* values) {
    std::transform(values, values + csr.values_size, floats.begin(), [](auto value) { return to_float(value); });
  });
  if (!dtype_entry(csr.dtype).scaled) return floats;
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
      floats.data()[i] *= csr.scales[csr.scale_index(r, csr.col_indices[i])];
    }
  }
  return floats;
}

CsrArrays csr_from_dense(const float* dense, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t size = checked_size(out_features, in_features);
  const auto nnz = static_cast<std::size_t>(size - std::count(dense, dense + size, 0.0F));
  CsrArrays csr = csr_with_capacity<float>(out_features, 0);
  // Branchless: every number is written, and zeros are overwritten by the next one, which avoids mispredictions on
  // random zeros. If another thread changes the matrix meanwhile, entries are wrong but stay within the row's space.
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
  const bool scaled = dtype_entry(csr.dtype).scaled;
  with_values(csr, [&](const auto* values) {
    for (std::int64_t r = 0; r < csr.out_features; ++r) {
      for (std::int64_t i = csr.crow_indices[r]; i < csr.crow_indices[r + 1]; ++i) {
        const std::int32_t column = csr.col_indices[i];
        const float scale = scaled ? csr.scales[csr.scale_index(r, column)] : 1.0F;
        dense[r * csr.in_features + column] = to_float(values[i]) * scale;
      }
    }
  });
}

}  // namespace sparsekit
