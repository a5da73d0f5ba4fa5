// Dense attention of one head, softmax(scale * Q K^T + bias + mask) V, a tile of queries at a time. What positions add
// to scores in disentangled attention comes as a mask.
//
//   Q^T   feature 0: q00 q10 q20 ..      S^T   key 0: s00 s10 s20 ..      O^T   feature 0: o00 o10 o20 ..
//         feature 1: q01 q11 q21 ..            key 1: s01 s11 s21 ..            feature 1: o01 o11 o21 ..
//
//   for each tile of one or two vectors of queries     Q^T, transposed once: [head_dim, tile]
//     for each key block (128)                         S^T: [128, tile], 16 KB with AVX-512, stays in L1
//       for every 8 keys                               their scores in registers, the features broadcast from K
//       for each key                                   exp(score - max_score), in place, and a running sum
//       for every 8 features of the output             their sums in registers, broadcast from V
//
// With the queries side by side the softmax needs nothing across a vector, both products are one loop (8 rows of
// broadcast numbers times two vectors: 10 loads for 16 multiply-adds), and K and V are read where they lie, whatever
// head_dim is: copying them in one piece first was 2-9% slower. Only Q and the output are transposed. Keys and values
// of 16 and 8 bits are widened first, a key block at a time, since they would be broadcast one by one.
//
// Online softmax: sums of earlier key blocks belong to the largest score so far; where a key block has a larger one,
// they are rescaled (Milakov and Gimelshein, "Online normalizer calculation for softmax"). So any number of keys needs
// the same memory.
#pragma once

#include "attention_mask.h"
#include "attention_positions_f32.h"
#include "attention_rows.h"
#include "attention_soft_cap.h"
#include "attention_tile.h"
#include "math.h"

namespace {

template <int vectors>
void begin_tile(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile) {
  pack_scaled<vectors>({head.query, head.query_stride, head.queries}, head, tile.query);
  fill(tile.output, tile.scores, 0.0F);
  fill(tile.max_score, tile.new_max_score, kLowest);
  fill(tile.exp_sum, tile.exp_sum + tile.queries, 0.0F);
}

/// Keys of a key block and their values, as floats.
struct KeyBlock {
  sparsekit::Range keys;
  const float* key;
  const float* value;
  std::int64_t key_stride;
  std::int64_t value_stride;
};

/// Floats of a key block that is widened.
template <class Entry>
constexpr std::int64_t widened_floats(std::int64_t head_dim, std::int64_t value_dim) {
  return sizeof(Entry) == sizeof(float) ? 0 : sparsekit::kKeyBlock * (head_dim + value_dim);
}

/// `space`: [widened_floats]
template <class Entry>
KeyBlock key_block(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* space) {
  const Entry* key = keys_from<Entry>(head, keys.first);
  const Entry* value = values_from<Entry>(head, keys.first);
  if constexpr (sizeof(Entry) == sizeof(float)) {
    return {keys, key, value, head.key_stride, head.value_stride};
  } else {
    float* values = space + sparsekit::kKeyBlock * head.head_dim;
    widen_rows(key, head.key_stride, head.key_scales, keys, head.head_dim, space);
    widen_rows(value, head.value_stride, head.value_scales, keys, head.value_dim, values);
    return {keys, space, values, head.head_dim, head.value_dim};
  }
}

/// Scores of a key block and the largest so far. Rows beyond the last key repeat it. Like the other product a
/// function of its own, or the addresses of rows do not stay in registers.
template <int vectors, bool capped>
[[gnu::noinline]] void score_keys(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile,
                                  const KeyBlock& block, const MaskBlock& mask) {
  const std::int64_t count = block.keys.last - block.keys.first;
  VecArray<vectors> max_score;
  load_row<vectors>(tile.max_score, max_score);
  for (std::int64_t first = 0; first < count; first += kAttentionRows) {
    const std::int64_t last = count - 1 - first;
    const float* a[kAttentionRows];
    for (int r = 0; r < kAttentionRows; ++r) a[r] = block.key + (first + min(r, last)) * block.key_stride;
    VecArray<kAttentionRows * vectors> sum;
    for (Vec& one : sum) one = Vec::zero();
    multiply_rows<vectors>(a, 1, tile.query, head.head_dim, sum);
    float* scores = tile.scores + first * tile.queries;
    for (int r = 0; r < kAttentionRows; ++r) {
      const std::int64_t key = first + min(r, last);
      for (int v = 0; v < vectors; ++v, scores += Vec::width) {
        Vec score = with_soft_cap<capped>(head, sum[r * vectors + v]);
        if (mask.of_keys != nullptr) score = score + Vec::broadcast(mask.of_keys + key);
        if (mask.of_pairs != nullptr) {
          score = score + Vec::load(mask.of_pairs + key * tile.queries + v * Vec::width);
        }
        if (mask.biases != nullptr) score = score + Vec::load(mask.biases - key + v * Vec::width);
        score.store(scores);
        max_score[v] = max(max_score[v], score);
      }
    }
  }
  store_row<vectors>(max_score, tile.new_max_score);
}

/// From scores to exp(score - max_score).
template <int vectors>
void exp_scores(const AttentionTile<vectors>& tile, std::int64_t count) {
  VecArray<vectors> before;
  VecArray<vectors> max_score;
  VecArray<vectors> exp_sum;
  load_row<vectors>(tile.max_score, before);
  load_row<vectors>(tile.new_max_score, max_score);
  load_row<vectors>(tile.exp_sum, exp_sum);
  for (int v = 0; v < vectors; ++v) {
    const Vec rescale = exp_up_to_89(before[v] - max_score[v]);
    rescale.store(tile.rescale + v * Vec::width);
    exp_sum[v] = exp_sum[v] * rescale;
  }
  float* scores = tile.scores;
  for (std::int64_t k = 0; k < count; ++k) {
    for (int v = 0; v < vectors; ++v, scores += Vec::width) {
      const Vec weight = exp_up_to_89(Vec::load(scores) - max_score[v]);
      weight.store(scores);
      exp_sum[v] = exp_sum[v] + weight;
    }
  }
  store_row<vectors>(max_score, tile.max_score);
  store_row<vectors>(exp_sum, tile.exp_sum);
}

/// Adds the values of the key block, each times the weight of its key. Rows beyond the last feature repeat it.
template <int vectors>
[[gnu::noinline]] void add_values(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile,
                                  const KeyBlock& block) {
  VecArray<vectors> rescale;
  load_row<vectors>(tile.rescale, rescale);
  for (std::int64_t first = 0; first < head.value_dim; first += kAttentionRows) {
    float* output = tile.output + first * tile.queries;
    const float* a[kAttentionRows];
    VecArray<kAttentionRows * vectors> sum;
    for (int r = 0; r < kAttentionRows; ++r) {
      a[r] = block.value + min(first + r, head.value_dim - 1);
      for (int v = 0; v < vectors; ++v) {
        sum[r * vectors + v] = Vec::load(output + (r * vectors + v) * Vec::width) * rescale[v];
      }
    }
    multiply_rows<vectors>(a, block.value_stride, tile.scores, block.keys.last - block.keys.first, sum);
    store_row<kAttentionRows * vectors>(sum, output);
  }
}

/// Divides by the sum; a query that sees nothing gets 0, as in torch.
template <int vectors>
void finish_tile(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile) {
  VecArray<vectors> factor;
  for (int i = 0; i < tile.queries; ++i) tile.exp_sum[i] = reciprocal_or_zero(tile.exp_sum[i]);
  load_row<vectors>(tile.exp_sum, factor);
  scale_rows<vectors>(tile.output, head.value_dim, factor);
  const sparsekit::Output out{head.output, head.output_stride, head.queries, nullptr, sparsekit::Activation::none};
  store_tile_with<AttentionTile<vectors>::queries>(tile.output, nullptr, {0, head.value_dim}, out,
                                                   [](Vec x) { return x; });
}

/// `head` has at most as many queries as the tile. Positions add to scores of float keys alone.
template <int vectors, class Entry>
void attend_tile(const sparsekit::AttentionHead& head, float* scratch) {
  const AttentionTile<vectors> tile(head, scratch);
  float* widened = scratch + AttentionTile<vectors>::floats(head.head_dim, head.value_dim);
  begin_tile<vectors>(head, tile);
  const std::int64_t seen = keys_seen(head);
  for (std::int64_t first = first_key_seen(head); first < seen; first += sparsekit::kKeyBlock) {
    const sparsekit::Range keys{first, min(first + sparsekit::kKeyBlock, seen)};
    MaskBlock mask = mask_block<tile.queries>(head, keys, {tile.row, tile.mask, tile.scores, tile.biases});
    if (mask.hidden) continue;
    if constexpr (sizeof(Entry) == sizeof(float)) {
      if (head.distance_rows != nullptr) add_positions<vectors>(head, tile, keys, mask);
    }
    const KeyBlock block = key_block<Entry>(head, keys, widened);
    head.soft_cap == 0.0F ? score_keys<vectors, false>(head, tile, block, mask)
                          : score_keys<vectors, true>(head, tile, block, mask);
    exp_scores<vectors>(tile, keys.last - keys.first);
    add_values<vectors>(head, tile, block);
  }
  finish_tile<vectors>(head, tile);
}

/// All queries of the head, in whole tiles and what is left. Operators cut heads at whole tiles, so a query is in the
/// same one for every number of threads: where it has a window, the first key of the tile's decides on key blocks, and
/// with them on its bits.
template <class Entry>
void attention_many(const sparsekit::AttentionHead& head, float* scratch) {
  constexpr std::int64_t whole = AttentionTile<kAttentionVectors>::queries;
  for (std::int64_t first = 0; first < head.queries; first += whole) {
    const auto part = queries_of(head, {first, min(first + whole, head.queries)});
    part.queries > Vec::width ? attend_tile<kAttentionVectors, Entry>(part, scratch)
                              : attend_tile<1, Entry>(part, scratch);
  }
}

}  // namespace
