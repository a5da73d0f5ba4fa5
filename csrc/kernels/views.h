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
/// is about as long, and a loop over the lanes in the order of memory ends when it is expected to. A cell owns the
/// groups `[starts[cell], starts[cell + 1])`. Position `p` of block `b` holds the lane
/// `window_of(p) + lanes[order_at(b, p)]`, of whose entries `counts[at(b, p)]` are real, the rest is padding: value 0,
/// column `kPadding`. The other way round, lane `l` is at the position `window_of(l) + positions[order_at(b, l)]`.
/// `Cells` knows where all of them are.
///
/// Lanes next to each other, of an even position and the odd one after it, begin with entries in the same columns, as
/// many quads of them in all pairs of a cell. The other entries of a lane follow; both are in ascending order.
///
/// `quads_bf16`, `quads_fp16`: the same with values of 16 bits; where they lie in a group: `value_slot`.
/// `quads_s8`: the same with a code of one byte for every value, `value = code * scales[row]`, and the columns of a
/// group in the order of its codes; all entries of a lane are in ascending order. Padding: code 0, column 0.
/// Its blocks slide: each begins 64 input features after the one before, so that most features lie in two. An entry of
/// such a feature is where there is room for it, which evens out how many entries the lanes of a tile have in a block:
/// 1.23 places a nonzero at 90%, where blocks that do not slide take 1.27 with an order of lanes for each, and 1.57
/// with one order. So one order is enough: a kernel goes on adding from block to block, and the cells of a tile lie one
/// after the other.
///
/// `quads_4x1_*`: a lane is four output features next to each other which have their entries in the same columns. An
/// entry is one column and four values: a group holds the values of every lane's first feature, then of every lane's
/// second, and so on.
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

/// Input features from a sliding block to the next.
inline constexpr std::int64_t kSlide = 64;

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

/// Which cells a packed weight has, and where they are: by block and then by tile, or by tile and then by block where
/// blocks slide.
struct Cells {
  std::int64_t blocks;
  std::int64_t tiles;  // of 16 lanes
  bool sliding;        // blocks, with one order of lanes for all of them

  /// First input feature of a block.
  std::int64_t start(std::int64_t block) const { return block * (sliding ? kSlide : kBlockWidth); }

  /// Input features of a token, rounded up to whole blocks.
  std::int64_t features() const { return start(blocks - 1) + kBlockWidth; }

  std::int64_t cell(std::int64_t block, std::int64_t tile) const {
    return sliding ? tile * blocks + block : block * tiles + tile;
  }

  /// Where `counts` of a block's position is.
  std::int64_t at(std::int64_t block, std::int64_t position) const {
    return cell(block, position / kLanes) * kLanes + position % kLanes;
  }

  /// Where `lanes` of a block's position and `positions` of its lane are.
  std::int64_t order_at(std::int64_t block, std::int64_t lane) const {
    return sliding ? lane : block * tiles * kLanes + lane;
  }
};

struct PackedWeight : Cells {
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
  std::int64_t height;  // output features of a lane
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

/// Rows of two activations that are added, and what their sums are normalised with; all contiguous.
struct NormRows {
  const float* input;  // [count, features]
  const float* added;  // [count, features]
  float* output;       // [count, features]
  std::int64_t count;
  std::int64_t features;
  const float* weight;  // [features] or null
  const float* bias;    // [features] or null
  float eps;
};

}  // namespace sparsekit
