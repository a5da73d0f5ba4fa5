#include "crc32.h"

#include <array>
#include <cstring>

namespace sparsekit {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

/// Table `k` is for a byte that `k` others follow ("slicing-by-8": Kounavis, Berry, "A systematic approach to building
/// high performance software-based CRC generators", ISCC 2005).
constexpr Tables tables() {
  Tables all{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
    all[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      all[k][byte] = all[k - 1][byte] >> 8 ^ all[0][all[k - 1][byte] & 255];
    }
  }
  return all;
}

constexpr Tables kTables = tables();

}  // namespace

std::uint32_t crc32(const std::byte* data, std::size_t bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (; bytes >= 8; bytes -= 8, data += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, data, sizeof eight);
    eight ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][eight >> 8 * k & 255];
  }
  for (; bytes > 0; --bytes, ++data) crc = crc >> 8 ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(*data)) & 255];
  return ~crc;
}

}  // namespace sparsekit
