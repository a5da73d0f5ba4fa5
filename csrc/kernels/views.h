// What a kernel sees: raw pointers and sizes, already checked by the layers above.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Applied to `sum + bias` when the result is stored.
enum class Activation : std::int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4 };

/// How a packed weight lies in memory.
///
/// `quads`: blocks of 128 input features, cut into tiles of 16 rows; a block's tile is a cell. A cell is a run of
/// groups, and a group holds four entries of each row, so that one row can be read four entries at a time and 16 rows
/// can be read side by side:
///
///   values   of a group   row 0: v0 v1 v2 v3 | row 1: v0 v1 v2 v3 | ... | row 15: v0 v1 v2 v3
///   columns  of a group   the same four by four, rows 0 4 8 12 1 5 9 13 2 6 10 14 3 7 11 15, which is what
///                         interleaving four byte planes gives (isa/icelake.h)
///
/// Every block sorts the rows of every window of 64 by their nonzeros in that block, most first: what lies side by side
/// is about as long, and a loop over the rows in the order of memory ends when it is expected to. Cell `b * tiles + t`
/// is tile `t` of block `b` and owns the groups `[starts[cell], starts[cell + 1])`. Position `p` of block `b`, with
/// `at = 16 * b * tiles + p`, holds the output feature `window_of(p) + rows[at]`, of whose entries `counts[at]` are
/// real, the rest is padding: value 0, column `kPadding`. The other way round, output feature `r` is at the position
/// `window_of(r) + positions[16 * b * tiles + r]`.
///
/// `quads_s8`: the same with a code of one byte for every value, `value = code * scales[row]`, and the columns of a
/// group in the order of its codes. Padding: code 0, column 0.
enum class Layout : std::uint32_t { quads = 1, quads_s8 = 2 };

/// Input features of a block: as many as four pairs of AVX-512 registers hold as byte planes.
inline constexpr std::int64_t kBlockWidth = 128;

/// Rows of a tile.
inline constexpr std::int64_t kLanes = 16;

/// Rows that are sorted together. Ranges of rows start at multiples of it, so that they hold the same output features.
inline constexpr std::int64_t kWindow = 64;

/// Entries of a row in a group, and of all rows.
inline constexpr unsigned kQuad = 4;
inline constexpr std::int64_t kGroup = kQuad * kLanes;

/// Column of a padded entry of `quads`; those of real ones are below 128.
inline constexpr std::uint8_t kPadding = 0x80;

/// Where the four values and the four columns of a lane start in a group; `quads_s8` has both at `value_slot`.
constexpr unsigned value_slot(unsigned lane) { return lane * kQuad; }
constexpr unsigned column_slot(unsigned lane) { return lane % 4 * 16 + lane / 4 * kQuad; }

/// First position, and first output feature, of a window.
constexpr std::int64_t window_of(std::int64_t position) { return position / kWindow * kWindow; }

/// `rows` rounded up to whole tiles.
constexpr std::int64_t padded_lanes(std::int64_t rows) { return (rows + kLanes - 1) / kLanes * kLanes; }

struct PackedWeight {
  const float* values;          // of `quads`
  const std::int8_t* codes;     // of `quads_s8`
  const std::uint8_t* columns;  // relative to the first input feature of the block
  const std::uint32_t* starts;
  const std::uint8_t* counts;
  const std::uint8_t* rows;
  const std::uint8_t* positions;
  const float* scales;         // of `quads_s8`: [out_features]
  const std::int32_t* totals;  // of `quads_s8`: [out_features], the sum of a row's codes
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t blocks;

  std::int64_t tiles() const { return padded_lanes(out_features) / kLanes; }

  /// Where `counts`, `rows` and `positions` of a block's position or output feature are.
  std::int64_t at(std::int64_t block, std::int64_t row) const { return block * tiles() * kLanes + row; }
};

/// Half-open range of features.
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
