// The layout `dense_s4`: every weight, zero or not, in four bits.
//
// Panels of 16 rows as in formats/dense.h, eight input features at a time: a pair of quads. A byte holds a weight of
// the first quad in its lower half and one of the second in its upper half, both plus 8, so that a mask and a shift
// make unsigned bytes of them:
//
//   values         [panels, in_features / 8, 16, 4]
//   group_scales   Float16 [panels, groups, 16]
//
// Groups are 128 input features of a row. That is how GPTQ and AWQ cut rows, and it lets kernels add a group exactly,
// as integers, before they scale it. Padding is zeros: weights of 0, scales of 0.
#pragma once

#include "packed.h"

namespace sparsekit {

/// `plan.group_scales` from `plan.scales`. Throws std::invalid_argument for scales that Float16 does not hold exactly.
void plan_dense_int4(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan);

/// Values of a CSR that are not stored as 0, in units of `scales`.
std::int64_t int4_nonzeros(const CsrView& csr, const std::vector<float>& scales);

/// `fill` and `unpack` of a LayoutEntry. Weights that are zero are no entries of what `unpack_dense_int4` gives.
void fill_dense_int4(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
AnyCsrArrays unpack_dense_int4(const PackedWeight& weight, std::int64_t nnz);

/// One weight.
float dense_int4_weight(const PackedWeight& weight, std::int64_t row, std::int64_t column);

/// The scales as CSR has them, [out_features, groups].
std::vector<float> group_scales_of(const PackedWeight& weight);

/// Throws std::invalid_argument for scales that are not positive and finite, and another number of nonzeros than `nnz`.
void check_dense_int4(const PackedWeight& weight, std::int64_t nnz);

}  // namespace sparsekit
