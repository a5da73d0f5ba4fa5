// Validate untrusted packed weights, on which kernels then run unchecked.
#pragma once

#include <cstddef>

namespace sparsekit {

/// Throws std::invalid_argument, saying what was expected and found, unless kernels and `unpack` can run on the buffer:
/// it has a header that `packed_header` lets pass, its stripes fit its entries, its rows are in an order, every column
/// is one of the weight's input features, and sums of int8 values fit 32 bits. Float values are not checked. Time is
/// linear in the buffer's size, about that of a call with one token.
void check_packed(const std::byte* buffer, std::size_t bytes);

}  // namespace sparsekit
