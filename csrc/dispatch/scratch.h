// Working memory that a thread keeps between calls, so that a call does not pay for page faults.
#pragma once

#include <cstddef>

namespace sparsekit {

enum class ScratchUse { activation, sums };

/// At least `floats` floats, aligned to 64 bytes, valid until this thread asks for the same use again.
float* scratch(ScratchUse use, std::size_t floats);

}  // namespace sparsekit
