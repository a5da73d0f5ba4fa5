// The gate of a gated linear unit.
#pragma once

#include <cstdint>

namespace sparsekit {

/// hidden *= gate, for `count` numbers.
void multiply_gate(float* hidden, const float* gate, std::int64_t count);

}  // namespace sparsekit
