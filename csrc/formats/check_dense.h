// The values of a dense layout that comes from outside.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Throws std::invalid_argument where values beyond the rows or input features are not zero, more than `nnz` are not,
/// or int8 values or their sums are wrong. Header and scales have been checked.
void check_dense(const PackedWeight& weight, const LayoutEntry& layout, std::int64_t nnz);

}  // namespace sparsekit
