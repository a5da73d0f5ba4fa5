// Additive attention masks and biases; minus infinity hides a key.
#pragma once

#include <cstddef>

#include "attention_args.h"
#include "tile_f32.h"

namespace {

template <int count>
using VecArray = Vec[static_cast<std::size_t>(count)];

/// Added to the scores of hidden keys.
inline constexpr float kHidden = -__builtin_inff();

/// The lowest finite float, the initial maximum of a query's scores: with minus infinity, the difference to a hidden
/// score would be NaN.
inline constexpr float kLowest = -3.40282347e+38F;

/// Numbers of a key block, or null.
struct MaskBlock {
  const float* of_keys;   // [kKeyBlock], the same for every query
  const float* of_pairs;  // [kKeyBlock, queries of the tile]
  const float* biases;    // of the tile's queries for the first key, one number earlier for each later key
  bool hidden;            // whether no query sees any of the keys
};

/// `count` entries of a row of the mask. Returns whether one of them is not hidden, as far as bytes say so.
inline bool mask_row(const sparsekit::AttentionHead& head, std::int64_t query, std::int64_t first, std::int64_t count,
                     float* row) {
  const std::int64_t at = query * head.mask_stride + first;
  if (head.mask_kind == sparsekit::MaskKind::added) {
    const float* added = static_cast<const float*>(head.mask) + at;
    for (std::int64_t i = 0; i < count; ++i) row[i] = added[i];
    return true;
  }
  const std::uint8_t* visible = static_cast<const std::uint8_t*>(head.mask) + at;
  std::uint8_t any = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    row[i] = visible[i] != 0 ? 0.0F : kHidden;
    any = static_cast<std::uint8_t>(any | visible[i]);
  }
  return any != 0;
}

/// One number a key.
inline MaskBlock mask_of_keys(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* row) {
  for (std::int64_t i = keys.last - keys.first; i < sparsekit::kKeyBlock; ++i) row[i] = 0.0F;
  const bool visible = mask_row(head, 0, keys.first, keys.last - keys.first, row);
  return {row, nullptr, nullptr, !visible};
}

/// One number for each key and query, transposed. `rows` is working memory of the panel's size.
template <int tile>
MaskBlock mask_of_pairs(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* panel, float* rows) {
  const std::int64_t count = keys.last - keys.first;
  if (head.mask_kind == sparsekit::MaskKind::added) {
    const float* added = static_cast<const float*>(head.mask) + keys.first;
    pack_tile_f32<tile>({added, head.mask_stride, head.queries}, {0, count}, 0, panel);
    return {nullptr, panel, nullptr, false};
  }
  bool visible = false;
  for (std::int64_t i = 0; i < head.queries; ++i) {
    visible = mask_row(head, i, keys.first, count, rows + i * sparsekit::kKeyBlock) || visible;
  }
  if (visible) pack_tile_f32<tile>({rows, sparsekit::kKeyBlock, head.queries}, {0, count}, 0, panel);
  return {nullptr, panel, nullptr, !visible};
}

/// Hidden queries, visible ones and hidden ones, a tile of each. A row that hides the first `n` queries starts at
/// `tile - n`, one that hides those from `n` on at `2 * tile - n`.
template <int tile>
struct Edges {
  float numbers[static_cast<std::size_t>(3 * tile)];

  constexpr Edges() : numbers() {
    for (int i = 0; i < tile; ++i) numbers[i] = numbers[2 * tile + i] = kHidden;
  }
};

/// Adds the row that starts at `first - key`, but from `least` to `least + tile`, to the panel of each key; or begins
/// the panel with them.
template <int tile>
void hide_keys(sparsekit::Range keys, std::int64_t first, std::int64_t least, bool begin, float* panel) {
  static constexpr Edges<tile> edges;
  for (std::int64_t k = keys.first; k < keys.last; ++k, panel += tile) {
    const float* row = edges.numbers + (first - k < least ? least : min(first - k, least + tile));
    for (int i = 0; i < tile; i += Vec::width) {
      const Vec hidden = Vec::load(row + i);
      (begin ? hidden : Vec::load(panel + i) + hidden).store(panel + i);
    }
  }
}

/// The biases of a key block, [kKeyBlock + tile]: those of distances that no query has are 0.
template <int tile>
const float* biases_of(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* biases) {
  const float* of_last_key = head.bias - (keys.last - 1);
  const std::int64_t before = keys.last - 1 - keys.first;
  const std::int64_t count = before + head.queries;
  for (std::int64_t i = 0; i < count; ++i) biases[i] = of_last_key[i];
  for (std::int64_t i = count; i < before + tile; ++i) biases[i] = 0.0F;
  return biases + before;
}

/// Working memory of masks of a tile's queries.
struct MaskSpace {
  float* row;     // [kKeyBlock]
  float* panel;   // [kKeyBlock, queries of the tile]
  float* rows;    // as `panel`
  float* biases;  // [kKeyBlock + queries of the tile]
};

/// The mask of a key block for the queries of `head`, a tile or fewer.
template <int tile>
MaskBlock mask_block(const sparsekit::AttentionHead& head, sparsekit::Range keys, const MaskSpace& space) {
  MaskBlock mask{nullptr, nullptr, nullptr, false};
  if (head.mask_kind != sparsekit::MaskKind::none) {
    mask = head.mask_stride == 0 ? mask_of_keys(head, keys, space.row)
                                 : mask_of_pairs<tile>(head, keys, space.panel, space.rows);
  }
  if (head.causal && keys.last - 1 > head.diagonal) {  // key `k` from the first `k - diagonal` queries
    hide_keys<tile>(keys, tile + head.diagonal, 0, mask.of_pairs == nullptr, space.panel);
    mask.of_pairs = space.panel;
  }
  if (head.span > 0 &&
      keys.first < head.queries + head.diagonal - head.span) {  // from those after `k - diagonal + span`
    hide_keys<tile>(keys, 2 * tile + head.diagonal - head.span, tile, mask.of_pairs == nullptr, space.panel);
    mask.of_pairs = space.panel;
  }
  if (head.bias != nullptr) mask.biases = biases_of<tile>(head, keys, space.biases);
  return mask;
}

/// Part of a head: some of its queries.
inline sparsekit::AttentionHead queries_of(const sparsekit::AttentionHead& head, sparsekit::Range queries) {
  const std::int64_t entry = head.mask_kind == sparsekit::MaskKind::added ? sizeof(float) : 1;
  sparsekit::AttentionHead part = head;
  part.query += queries.first * head.query_stride;
  part.output += queries.first * head.output_stride;
  part.mask = static_cast<const char*>(head.mask) + queries.first * head.mask_stride * entry;
  part.diagonal += queries.first;
  if (head.bias != nullptr) part.bias += queries.first;
  if (head.distance_rows != nullptr) part.distance_rows += queries.first;
  part.queries = queries.last - queries.first;
  return part;
}

/// Reciprocal of a row's total, or 0 if the query sees no key.
inline float reciprocal_or_zero(float total) { return total == 0.0F ? 0.0F : 1.0F / total; }

/// End of the keys that any of the queries sees; 0 if all queries precede the first key.
inline std::int64_t keys_seen(const sparsekit::AttentionHead& head) {
  if (!head.causal) return head.keys;
  const std::int64_t last = head.queries + head.diagonal;
  return last < 0 ? 0 : min(last, head.keys);
}

/// The first key that one of the queries can see.
inline std::int64_t first_key_seen(const sparsekit::AttentionHead& head) {
  return head.span == 0 ? 0 : max(0, head.diagonal - head.span + 1);
}

}  // namespace
