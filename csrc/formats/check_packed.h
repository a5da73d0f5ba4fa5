// The check that packed weights from outside pass: kernels then run on them unchecked.
#pragma once

#include <cstddef>

namespace sparsekit {

/// Throws std::invalid_argument, saying what was expected and found, unless kernels and `unpack` can run on the buffer:
/// it has a header that `packed_header` lets pass, its stripes fit its entries, its rows are in an order, every column
/// is one of the weight's input features, and sums of int8 values fit 32 bits. Values are any floats; whether they are
/// those that were packed, nobody can tell. Takes time in proportion to the buffer's size, about as long as one token.
void check_packed(const std::byte* buffer, std::size_t bytes);

}  // namespace sparsekit
