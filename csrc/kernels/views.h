// What a kernel sees: raw pointers and sizes, already checked by the layers above.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Applied to `sum + bias` when the result is stored.
enum class Activation : std::int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4 };

/// How a packed weight lies in memory.
///
/// `quads_f32`: blocks of 128 input features, cut into tiles of 16 lanes; a lane is an output feature, and a block's
/// tile is a cell. A cell is a run of groups, and a group holds four entries of each lane, so that one lane can be read
/// four entries at a time and 16 lanes can be read side by side:
///
///   values   of a group   lane 0: v0 v1 v2 v3 | lane 1: v0 v1 v2 v3 | ... | lane 15: v0 v1 v2 v3
///   columns  of a group   the same four by four, lanes 0 4 8 12 1 5 9 13 2 6 10 14 3 7 11 15, which is what
///                         interleaving four byte planes gives (isa/icelake.h)
///
/// Every block sorts the lanes of every window of 64 by their entries in that block, most first: what lies side by side
/// is about as long, and a loop over the lanes in the order of memory ends when it is expected to. Cell `b * tiles + t`
/// is tile `t` of block `b` and owns the groups `[starts[cell], starts[cell + 1])`. Position `p` of block `b`, with
/// `at = 16 * b * tiles + p`, holds the lane `window_of(p) + lanes[at]`, of whose entries `counts[at]` are real, the
/// rest is padding: value 0, column `kPadding`. The other way round, lane `l` is at the position
/// `window_of(l) + positions[16 * b * tiles + l]`.
///
/// Lanes next to each other, of an even position and the odd one after it, begin with entries in the same columns, as
/// many quads of them in all pairs of a cell. The other entries of a lane follow; both are in ascending order.
///
/// `quads_bf16`, `quads_fp16`: the same with values of 16 bits; where they lie in a group: `value_slot`.
/// `quads_s8`: the same with a code of one byte for every value, `value = code * scales[row]`, and the columns of a
/// group in the order of its codes; all entries of a lane are in ascending order. Padding: code 0, column 0.
///
/// `quads_4x1_*`: a lane is four output features next to each other which have their entries in the same columns. An
/// entry is one column and four values: a group holds the values of every lane's first feature, then of every lane's
/// second, and so on. In `quads_4x1_s8` all blocks have the lanes of a window in one order, by their entries in all
/// blocks, so that a kernel can go on adding from block to block.
enum class Layout : std::uint32_t {
  quads_f32 = 1,
  quads_s8 = 2,
  quads_bf16 = 3,
  quads_fp16 = 4,
  quads_4x1_f32 = 5,
  quads_4x1_s8 = 6,
  quads_4x1_bf16 = 7,
  quads_4x1_fp16 = 8,
};

/// A float without its last 16 bits.
struct BFloat16 {
  std::uint16_t bits;
};

/// A float of IEEE 754's binary16.
struct Float16 {
  std::uint16_t bits;
};

/// Input features of a block: as many as four pairs of AVX-512 registers hold as byte planes.
inline constexpr std::int64_t kBlockWidth = 128;

/// Lanes of a tile.
inline constexpr std::int64_t kLanes = 16;

/// Lanes that are sorted together. Ranges of lanes start at multiples of it, so that they hold the same output
/// features.
inline constexpr std::int64_t kWindow = 64;

/// Entries of a lane in a group, and of all lanes.
inline constexpr unsigned kQuad = 4;
inline constexpr std::int64_t kGroup = kQuad * kLanes;

/// Column of a padded entry of float values; those of real ones are below 128.
inline constexpr std::uint8_t kPadding = 0x80;

/// Where the four columns of a lane start in a group.
template <class Value>
constexpr unsigned column_slot(unsigned lane) {
  return sizeof(Value) == 1 ? lane * kQuad : lane % 4 * 16 + lane / 4 * kQuad;
}

/// Where entry `i` of a lane has its value, among those of one output feature in a group. The lanes 0 to 3 and 4 to 7
/// of BFloat16 take turns, so that masks and shifts make floats of 32 bits: those of 4 to 7 are the upper halves.
template <class Value>
constexpr unsigned value_slot(unsigned lane, unsigned i) {
  return lane * kQuad + i;
}
template <>
constexpr unsigned value_slot<BFloat16>(unsigned lane, unsigned i) {
  return lane / 8 * 32 + (lane % 4 * kQuad + i) * 2 + lane / 4 % 2;
}

/// First position, and first lane, of a window.
constexpr std::int64_t window_of(std::int64_t position) { return position / kWindow * kWindow; }

/// `lanes` rounded up to whole tiles.
constexpr std::int64_t padded_lanes(std::int64_t lanes) { return (lanes + kLanes - 1) / kLanes * kLanes; }

/// Lanes, rounded up to whole tiles, for `rows` output features, `height` a lane.
constexpr std::int64_t lanes_for(std::int64_t rows, std::int64_t height) {
  return padded_lanes((rows + height - 1) / height);
}

struct PackedWeight {
  const void* values;
  const std::uint8_t* columns;  // relative to the first input feature of the block
  const std::uint32_t* starts;
  const std::uint8_t* counts;
  const std::uint8_t* lanes;
  const std::uint8_t* positions;
  const float* scales;         // of int8 values: [out_features]
  const std::int32_t* totals;  // of int8 values: [out_features], the sum of a row's codes
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t blocks;
  std::int64_t height;  // output features of a lane
  std::int64_t tiles;   // of 16 lanes

  /// Where `counts`, `lanes` and `positions` of a block's position or lane are.
  std::int64_t at(std::int64_t block, std::int64_t lane) const { return block * tiles * kLanes + lane; }
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

/// What a mask holds for a query and a key.
enum class MaskKind : std::int32_t {
  none = 0,
  added = 1,    // a float that is added to the score
  visible = 2,  // a byte, 0 where the query must not see the key
};

/// Keys whose scores are in working memory at a time.
inline constexpr std::int64_t kKeyBlock = 128;

/// Attention of one head of one text: rows of features that are contiguous, `stride` floats from token to token.
///
/// Query `i` sees the keys `[0, keys)`, or where `causal` those of them up to `i + diagonal`.
struct AttentionHead {
  const float* query;  // [queries, head_dim]
  const float* key;    // [keys, head_dim]
  const float* value;  // [keys, value_dim]
  float* output;       // [queries, value_dim]
  std::int64_t query_stride;
  std::int64_t key_stride;
  std::int64_t value_stride;
  std::int64_t output_stride;
  std::int64_t queries;
  std::int64_t keys;
  std::int64_t head_dim;
  std::int64_t value_dim;
  const void* mask;          // [queries, keys]
  std::int64_t mask_stride;  // entries between queries; 0 where all of them share a row
  MaskKind mask_kind;
  bool causal;
  std::int64_t diagonal;
  float scale;
};

}  // namespace sparsekit
