// Working memory that a thread keeps between calls, so that a call does not pay for page faults.
#pragma once

#include <cstddef>

namespace sparsekit {

enum class ScratchUse { activation, sums };

/// At least `bytes` bytes, aligned to 64, valid until this thread asks for the same use again.
std::byte* scratch(ScratchUse use, std::size_t bytes);

}  // namespace sparsekit
