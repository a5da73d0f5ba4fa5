// Declarations for instruction sets without byte vectors; named by kernels, never instantiated.
#pragma once

#include <cstdint>

namespace {

inline constexpr bool kInterleavesBytes = false;
inline constexpr int kS8RowsInRegisters = 1;

struct VecU8 {
  static VecU8 load(const std::uint8_t* p);
};

struct Int8Quads {
  static Int8Quads broadcast(const std::int8_t* p);
  static Int8Quads load(const std::int8_t* p);
};

struct ByteTable {
  static ByteTable load(const std::uint8_t* p);
  VecU8 look_up(const std::uint8_t* columns) const;
};

inline void interleave(VecU8 (&)[4]) {}
inline void transpose_bytes(const std::uint8_t*, std::int64_t, std::uint8_t*, std::int64_t) {}

}  // namespace
