// The int8 values of a dense layout that comes from outside; floats may be any.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Throws std::invalid_argument where int8 values, or their sums, are not what kernels count on. Header and scales have
/// been checked.
void check_dense_s8(const PackedWeight& weight);

}  // namespace sparsekit
