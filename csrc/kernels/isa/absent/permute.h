// Declarations for instruction sets that cannot permute inputs across registers; named by kernels, never instantiated.
#pragma once

#include <cstdint>

namespace {

struct Vec;
struct VecI32;

inline constexpr bool kPermutesInputs = false;

struct Columns {
  static Columns load(const std::uint8_t* p);
};

struct Inputs {
  static constexpr std::int64_t kPackWidth = 1;
  static void pack(const float* row, std::int64_t count, float* out);
  static Inputs load(const float* packed);
  void permute(const Columns& columns, Vec* permuted) const;
};

struct SlotIndex {
  explicit SlotIndex(const std::uint8_t* p);
  static SlotIndex by_four(const std::uint8_t* p);
  Vec permute(const Vec* from) const;
  VecI32 permute(const VecI32* from) const;
};

template <class V>
void interleave(V (&rows)[4]);

}  // namespace
