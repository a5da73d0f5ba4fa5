// The `quads` layout (kernels/views.h): 16 rows side by side, four entries of each at a time; values as floats or as
// bytes.
#pragma once

#include "packed.h"

namespace sparsekit {

void plan_quads(const CsrView& csr, PackPlan& plan);
void plan_quads_s8(const CsrView& csr, PackPlan& plan);
void quads_fill(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
void quads_s8_fill(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
CsrArrays quads_unpack(const PackedWeight& weight, std::int64_t nnz);
CsrArrays quads_s8_unpack(const PackedWeight& weight, std::int64_t nnz);
std::int64_t quads_work_before(const PackedWeight& weight, std::int64_t row);

}  // namespace sparsekit
