// The layouts `dense_*`: every weight, zero or not, for layers with few zeros or none.
//
// 16 rows are a panel. A panel holds, input feature by input feature, the weights of its 16 rows; with int8 values four
// input features at a time, a quad, which instruction sets multiply and add together:
//
//   values    [panels, in_features, 16], int8 [panels, in_features / 4, 16, 4]
//
// Rows are rounded up to whole panels and input features to whole quads, with zeros. There are no columns; rows are in
// order. Packing panels so that a kernel reads them from beginning to end is usual for dense products (Goto, van de
// Geijn: "Anatomy of high-performance matrix multiplication", ACM Trans. Math. Softw. 34, 2008).
#pragma once

#include "packed.h"

namespace sparsekit {

/// Index of a weight among the values of a dense layout.
template <class Value>
constexpr std::int64_t dense_place(const PackedShape& shape, std::int64_t row, std::int64_t column) {
  constexpr std::int64_t together = sizeof(Value) == 1 ? kQuad : 1;
  const std::int64_t panel = row / kSlice * kSlice * shape.padded_features();
  return panel + column / together * together * kSlice + row % kSlice * together + column % together;
}

/// `fill` and `unpack` of a LayoutEntry, for float, BFloat16, Float16 and std::int8_t. Weights that are zero are no
/// entries of what `unpack_dense` gives.
template <class Value>
void fill_dense(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
template <class Value>
AnyCsrArrays unpack_dense(const PackedWeight& weight, std::int64_t nnz);

}  // namespace sparsekit
