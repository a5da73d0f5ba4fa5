// Check the int8 values of an untrusted dense layout; float values need no check.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Throws std::invalid_argument if int8 values or their row sums violate what kernels assume. Header and scales are
/// already checked.
void check_dense_s8(const PackedWeight& weight);

}  // namespace sparsekit
