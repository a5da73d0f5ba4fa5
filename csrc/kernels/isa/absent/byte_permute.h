// Declarations for instruction sets that cannot permute bytes across registers; named by kernels, never instantiated.
#pragma once

#include <cstdint>

namespace {

inline constexpr bool kPermutesBytes = false;

struct InputBytes {
  static InputBytes load(const std::uint8_t* p);
  static InputBytes load_stripe(const void* p);
  InputBytes permute(InputBytes columns) const;
};

}  // namespace
