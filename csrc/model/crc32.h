// CRC-32 as zlib computes it (polynomial 0xEDB88320), for checksums of compiled models.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsekit {

std::uint32_t crc32(const std::byte* data, std::size_t bytes);

}  // namespace sparsekit
