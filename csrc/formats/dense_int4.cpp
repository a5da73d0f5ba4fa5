#include "dense_int4.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "damaged.h"
#include "row_groups.h"
#include "values.h"

namespace sparsekit {
namespace {

/// Offset that makes a weight nonnegative.
constexpr int kOffset = 8;

/// The byte of a weight, and its nibble.
struct Place {
  std::int64_t byte;
  unsigned shift;

  Place(const PackedShape& shape, std::int64_t row, std::int64_t column)
      : byte((row / kSlice * shape.padded_features() + column / 8 * 8) * kSlice / 2 + row % kSlice * kQuad +
             column % kQuad),
        shift(column % 8 < kQuad ? 0 : 4) {}

  int code(const std::uint8_t* values) const { return (values[byte] >> shift & 15) - kOffset; }

  void put(std::uint8_t* values, int code) const {
    values[byte] = static_cast<std::uint8_t>((values[byte] & 0xF0 >> shift) | (code + kOffset) << shift);
  }
};

/// Index of the scale of a group.
std::int64_t scale_place(std::int64_t groups, std::int64_t row, std::int64_t group) {
  return (row / kSlice * groups + group) * kSlice + row % kSlice;
}

Float16 exact_float16(float scale) {
  const Float16 narrow = to_float16(scale);
  if (to_float(narrow) == scale) return narrow;
  throw std::invalid_argument("int4 scales must be numbers that float16 holds, got " + std::to_string(scale));
}

/// Calls `visit(row, column, code)` for every value.
template <class Source, class Visit>
void for_codes_of(const CsrView& csr, const std::vector<float>& scales, const Visit& visit) {
  const std::int64_t groups = groups_of(csr.in_features);
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    for (std::int64_t i = csr.crow_indices[row]; i < csr.crow_indices[row + 1]; ++i) {
      const std::int64_t column = csr.col_indices[i];
      const float scale = scales[static_cast<std::size_t>(row * groups + column / kGroup)];
      visit(row, column, stored<Int4>(csr.values_as<Source>()[i], scale).code);
    }
  }
}

template <class Visit>
void for_codes(const CsrView& csr, const std::vector<float>& scales, const Visit& visit) {
  csr.dtype == DType::int4 ? for_codes_of<Int4>(csr, scales, visit) : for_codes_of<float>(csr, scales, visit);
}

}  // namespace

void plan_dense_int4(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan) {
  const PackedShape shape = shape_for(layout, csr.out_features, csr.in_features);
  const std::int64_t groups = groups_of(csr.in_features);
  plan.slice_offsets.assign(1, 0);
  plan.group_scales.assign(static_cast<std::size_t>(shape.slices * kSlice * groups), Float16{0});
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const float scale = plan.scales[static_cast<std::size_t>(row * groups + g)];
      plan.group_scales[static_cast<std::size_t>(scale_place(groups, row, g))] = exact_float16(scale);
    }
  }
}

std::int64_t int4_nonzeros(const CsrView& csr, const std::vector<float>& scales) {
  std::int64_t count = 0;
  for_codes(csr, scales, [&](std::int64_t, std::int64_t, int code) { count += code != 0 ? 1 : 0; });
  return count;
}

void fill_dense_int4(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t*) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(values);
  std::fill_n(bytes, plan.header.entries / 2, static_cast<std::uint8_t>(kOffset << 4 | kOffset));
  const PackedShape shape = shape_for(layout_entry(plan.header.layout), csr.out_features, csr.in_features);
  for_codes(csr, plan.scales,
            [&](std::int64_t row, std::int64_t column, int code) { Place(shape, row, column).put(bytes, code); });
}

AnyCsrArrays unpack_dense_int4(const PackedWeight& weight, std::int64_t nnz) {
  const auto* values = static_cast<const std::uint8_t*>(weight.values);
  auto csr = csr_with_capacity<Int4>(weight.out_features, nnz);
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    for (std::int64_t column = 0; column < weight.in_features; ++column) {
      const int code = Place(weight, row, column).code(values);
      if (code == 0) continue;
      csr.col_indices.push_back(static_cast<std::int32_t>(column));
      csr.values.push_back({static_cast<std::int8_t>(code)});
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

float dense_int4_weight(const PackedWeight& weight, std::int64_t row, std::int64_t column) {
  const Float16 scale = weight.group_scales[scale_place(groups_of(weight.in_features), row, column / kGroup)];
  const int code = Place(weight, row, column).code(static_cast<const std::uint8_t*>(weight.values));
  return static_cast<float>(code) * to_float(scale);
}

std::vector<float> group_scales_of(const PackedWeight& weight) {
  const std::int64_t groups = groups_of(weight.in_features);
  std::vector<float> scales;
  for (std::int64_t row = 0; row < weight.out_features; ++row) {
    for (std::int64_t g = 0; g < groups; ++g)
      scales.push_back(to_float(weight.group_scales[scale_place(groups, row, g)]));
  }
  return scales;
}

void check_dense_int4(const PackedWeight& weight, std::int64_t nnz) {
  for (const float scale : group_scales_of(weight)) {
    if (!(scale > 0.0F && std::isfinite(scale))) refuse_packed("scales must be positive and finite");
  }
  const auto* values = static_cast<const std::uint8_t*>(weight.values);
  const std::int64_t bytes = weight.dense_values() / 2;
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < bytes; ++i) found += ((values[i] & 15) != kOffset) + (values[i] >> 4 != kOffset);
  if (found != nnz) {
    refuse_packed("it must have " + std::to_string(nnz) + " nonzeros, got " + std::to_string(found));
  }
}

}  // namespace sparsekit
