// The exception of packed weight checks.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace sparsekit {

[[noreturn]] inline void refuse_packed(const std::string& what) {
  throw std::invalid_argument("the packed weight is damaged: " + what + "; pack a CSR with CSR.pack()");
}

}  // namespace sparsekit
