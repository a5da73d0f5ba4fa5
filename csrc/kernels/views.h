// What a kernel sees: raw pointers and sizes, already checked by the layers above.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Applied to `sum + bias` when the result is stored.
enum class Activation : std::int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4 };

/// How a packed weight lies in memory. What each array of `PackedWeight` means follows from it:
///
/// `panel`: CSR cut into blocks of `block_width` input features. The rows of a block follow one another; row `r` of
///   block `b` owns the entries `[starts[b * out_features + r], starts[b * out_features + r + 1])`. No padding.
///
/// `lanes`: tiles of 16 rows, cut into blocks of 32 input features. Step `s` of a tile's block holds one entry of each
///   row: entry `16 * s + lane`. Block `b` of tile `t` owns the steps `[starts[t * blocks + b], starts[.. + 1])`; rows
///   with fewer entries are padded; `counts[16 * (t * blocks + b) + lane]` are real. The columns of real entries have
///   `kRealEntry` set, padding is 0.
enum class Layout : std::uint32_t { panel = 1, lanes = 2 };

struct PackedWeight {
  const float* values;
  const std::uint8_t* columns;  // relative to the first input feature of the block
  const std::uint32_t* starts;
  const std::uint8_t* counts;  // lanes only
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t block_width;
  std::int64_t blocks;
};

/// Rows of a tile of the `lanes` layout.
inline constexpr std::int64_t kLanes = 16;

/// Flag of a real entry in a column of the `lanes` layout; the column itself is below 32.
inline constexpr std::uint8_t kRealEntry = 0x80;
inline constexpr std::uint8_t kColumnMask = 0x1F;

/// `rows` rounded up to whole tiles.
constexpr std::int64_t padded_lanes(std::int64_t rows) { return (rows + kLanes - 1) / kLanes * kLanes; }

/// Half-open range of output features.
struct RowRange {
  std::int64_t first;
  std::int64_t last;
};

/// Where finished sums go: rows of a row-major activation `[tokens, out_features]`.
struct Output {
  float* data;          // first token of the tile, output feature 0
  std::int64_t stride;  // floats between tokens
  std::int64_t tokens;  // valid tokens of the tile
  const float* bias;    // [out_features] or null
  Activation activation;
};

/// Where a tile's activation comes from: rows of a row-major activation `[tokens, in_features]`.
struct Input {
  const float* data;    // first token of the tile, input feature 0
  std::int64_t stride;  // floats between tokens
  std::int64_t tokens;  // valid tokens of the tile
};

}  // namespace sparsekit
