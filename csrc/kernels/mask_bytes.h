// Lookup table for the bytes of a bitmask (formats/csr_blocks.h), each of which covers eight columns.
#pragma once

#include <cstdint>

namespace {

struct MaskBytes {
  std::uint64_t columns[256] = {};  // those of its bits, a byte each from the lowest on, in ascending order
  std::uint64_t places[256] = {};   // of each column: which of the values is its own, or 0x80
  std::uint8_t bits[256] = {};
};

constexpr MaskBytes mask_bytes() {
  MaskBytes all;
  for (unsigned mask = 0; mask < 256; ++mask) {
    for (unsigned column = 0; column < 8; ++column) {
      if ((mask >> column & 1) == 0) {
        all.places[mask] |= std::uint64_t{0x80} << 8 * column;
        continue;
      }
      all.places[mask] |= std::uint64_t{all.bits[mask]} << 8 * column;
      all.columns[mask] |= std::uint64_t{column} << 8 * all.bits[mask]++;
    }
  }
  return all;
}

alignas(64) inline constexpr MaskBytes kMaskBytesTable = mask_bytes();

}  // namespace
