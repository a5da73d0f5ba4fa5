// Row groups (the rows of 4x1 blocks, or single rows) while their entries are written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "packed.h"
#include "values.h"

namespace sparsekit {

/// Throws std::invalid_argument where rows of one row group have entries in different columns.
void check_row_groups(const CsrView& csr, std::int64_t height);

/// Throws where values cannot be stored in units of `scales`, as many for each row, as `dtype`: these must be positive,
/// all finite.
void check_scaled_rows(const CsrView& csr, const std::vector<float>& scales, DType dtype);

/// A value of a CSR in the type of a layout; `scale`: of its row for int8, of its group for int4.
template <class Value, class Source>
Value stored(Source value, float scale) {
  if constexpr (std::is_same_v<Value, Source>) {
    return value;
  } else if constexpr (std::is_same_v<Value, BFloat16>) {
    return to_bfloat16(value);
  } else if constexpr (std::is_same_v<Value, Float16>) {
    return to_float16(value);
  } else if constexpr (std::is_same_v<Value, Int4>) {
    return quantize_int4(value, scale);
  } else {
    return quantize(value, scale);
  }
}

/// The rows of a row group: values that go on from entry to entry, and scales.
template <class Source, int height>
struct GroupRows {
  std::int64_t count;                                           // of real rows: the last row group may have fewer
  const Source* values[static_cast<std::size_t>(height)] = {};  // of entry 0 of the first row
  float scales[static_cast<std::size_t>(height)] = {};

  GroupRows(const CsrView& csr, const PackPlan& plan, std::int64_t row_group)
      : count(std::min<std::int64_t>(height, csr.out_features - row_group * height)) {
    const std::int64_t row = row_group * height;
    for (std::int64_t r = 0; r < count; ++r) {
      values[r] = csr.values_as<Source>() + (csr.crow_indices[row + r] - csr.crow_indices[row]);
      if (!plan.scales.empty()) scales[r] = plan.scales[static_cast<std::size_t>(row + r)];
    }
  }
};

}  // namespace sparsekit
