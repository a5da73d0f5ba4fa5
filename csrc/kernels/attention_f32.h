// Dense attention of one head, softmax(scale * Q K^T + mask) V, a tile of queries at a time.
//
//   Q^T   feature 0: q00 q10 q20 ..      S^T   key 0: s00 s10 s20 ..      O^T   feature 0: o00 o10 o20 ..
//         feature 1: q01 q11 q21 ..            key 1: s01 s11 s21 ..            feature 1: o01 o11 o21 ..
//
//   for each tile of one or two vectors of queries     Q^T, transposed once: [head_dim, tile]
//     for each block of 128 keys                       S^T: [128, tile], 16 KB with AVX-512, stays in L1
//       for every 8 keys                               their scores in registers, the features broadcast from K
//       for each key                                   exp(score - largest), in place, and a running sum
//       for every 8 features of the output             their sums in registers, broadcast from V
//
// With the queries side by side the softmax needs nothing across a vector, both products are one loop (8 rows of
// broadcast numbers times two vectors: 10 loads for 16 multiply-adds), and K and V are read where they lie, whatever
// head_dim is: copying them in one piece first was 2-9% slower. Only Q and the output are transposed.
//
// The sums of earlier blocks belong to the largest score so far; where a block has a larger one, they shrink (Milakov
// and Gimelshein, "Online normalizer calculation for softmax"). So any number of keys needs the same memory.
#pragma once

#include "attention_mask.h"
#include "math.h"
#include "tile_f32.h"

namespace {

/// Rows of a product and vectors of queries: as many sums as registers hold beside what is multiplied. Three vectors
/// of queries were 2-8% slower.
inline constexpr int kAttentionRows = kRegisters == 32 ? 8 : 6;
inline constexpr int kAttentionVectors = 2;

/// `count` rounded up to whole products.
constexpr std::int64_t padded_rows(std::int64_t count) {
  return (count + kAttentionRows - 1) / kAttentionRows * kAttentionRows;
}

/// sum[r] += a[r][t * step] * b[t] for all steps `t`; a row of `b` and a sum have `vectors` vectors.
template <int vectors>
[[gnu::always_inline]] inline void multiply_rows(const float* const (&a)[kAttentionRows], std::int64_t step,
                                                 const float* b, std::int64_t steps, Vector* sum) {
  for (std::int64_t t = 0; t < steps; ++t) {
    Vectors<vectors> x;
    for (int v = 0; v < vectors; ++v) x[v] = Vector::load(b + (t * vectors + v) * Vector::width);
    for (int r = 0; r < kAttentionRows; ++r) {
      const Vector scale = Vector::broadcast(a[r] + t * step);
      for (int v = 0; v < vectors; ++v) sum[r * vectors + v] = fma(scale, x[v], sum[r * vectors + v]);
    }
  }
}

/// Working memory of a tile. Rows that pad it to whole products are written, and never read for a result.
template <int vectors>
struct AttentionTile {
  static constexpr int lanes = vectors * Vector::width;
  float* query;    // [head_dim, lanes], scaled
  float* output;   // [padded value_dim, lanes]: sums that belong to `largest`
  float* scores;   // [padded kKeyBlock, lanes], then weights
  float* mask;     // [kKeyBlock, lanes]
  float* row;      // [kKeyBlock]: the mask where all queries share it
  float* largest;  // [lanes], of the scores so far
  float* larger;   // [lanes], with those of the block
  float* shrink;   // [lanes]: what sums of earlier blocks are multiplied with
  float* total;    // [lanes], of exp(score - largest)

  AttentionTile(const sparsekit::AttentionHead& head, float* scratch)
      : query(scratch),
        output(query + head.head_dim * lanes),
        scores(output + padded_rows(head.value_dim) * lanes),
        mask(scores + padded_rows(sparsekit::kKeyBlock) * lanes),
        row(mask + sparsekit::kKeyBlock * lanes),
        largest(row + sparsekit::kKeyBlock),
        larger(largest + lanes),
        shrink(larger + lanes),
        total(shrink + lanes) {}

  static constexpr std::int64_t floats(std::int64_t head_dim, std::int64_t value_dim) {
    const std::int64_t rows = head_dim + padded_rows(value_dim) + padded_rows(sparsekit::kKeyBlock);
    return (rows + sparsekit::kKeyBlock + 4) * lanes + sparsekit::kKeyBlock;
  }
};

template <int vectors>
inline void load_row(const float* p, Vectors<vectors>& row) {
  for (int v = 0; v < vectors; ++v) row[v] = Vector::load(p + v * Vector::width);
}

template <int vectors>
inline void store_row(const Vectors<vectors>& row, float* p) {
  for (int v = 0; v < vectors; ++v) row[v].store(p + v * Vector::width);
}

inline void fill(float* first, const float* last, float number) {
  for (float* p = first; p != last; p += Vector::width) Vector::broadcast(number).store(p);
}

/// rows[i] *= factor for `count` rows.
template <int vectors>
inline void scale_rows(float* rows, std::int64_t count, const Vectors<vectors>& factor) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (int v = 0; v < vectors; ++v, rows += Vector::width) (Vector::load(rows) * factor[v]).store(rows);
  }
}

template <int vectors>
void begin_tile(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile) {
  pack_tile_f32<AttentionTile<vectors>::lanes>({head.query, head.query_stride, head.queries}, {0, head.head_dim}, 0,
                                               tile.query);
  Vectors<vectors> scale;
  for (Vector& one : scale) one = Vector::broadcast(head.scale);
  scale_rows<vectors>(tile.query, head.head_dim, scale);
  fill(tile.output, tile.scores, 0.0F);
  fill(tile.largest, tile.larger, kLowest);
  fill(tile.total, tile.total + tile.lanes, 0.0F);
}

/// Scores of a block's keys and the largest so far. Rows beyond the last key repeat it. Like the other product a
/// function of its own, or the addresses of rows do not stay in registers.
template <int vectors>
[[gnu::noinline]] void score_keys(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile,
                                  sparsekit::RowRange keys, const MaskBlock& mask) {
  Vectors<vectors> largest;
  load_row<vectors>(tile.largest, largest);
  for (std::int64_t first = keys.first; first < keys.last; first += kAttentionRows) {
    const std::int64_t last = keys.last - 1 - first;
    const float* a[kAttentionRows];
    for (int r = 0; r < kAttentionRows; ++r) a[r] = head.key + (first + smaller(r, last)) * head.key_stride;
    Vectors<kAttentionRows * vectors> sum;
    for (Vector& one : sum) one = Vector::zero();
    multiply_rows<vectors>(a, 1, tile.query, head.head_dim, sum);
    float* scores = tile.scores + (first - keys.first) * tile.lanes;
    for (int r = 0; r < kAttentionRows; ++r) {
      const std::int64_t key = first - keys.first + smaller(r, last);
      for (int v = 0; v < vectors; ++v, scores += Vector::width) {
        Vector score = sum[r * vectors + v];
        if (mask.of_keys != nullptr) score = score + Vector::broadcast(mask.of_keys + key);
        if (mask.of_pairs != nullptr) {
          score = score + Vector::load(mask.of_pairs + key * tile.lanes + v * Vector::width);
        }
        score.store(scores);
        largest[v] = larger_of(largest[v], score);
      }
    }
  }
  store_row<vectors>(largest, tile.larger);
}

/// From scores to exp(score - largest).
template <int vectors>
void weigh_keys(const AttentionTile<vectors>& tile, std::int64_t count) {
  Vectors<vectors> before;
  Vectors<vectors> largest;
  Vectors<vectors> total;
  load_row<vectors>(tile.largest, before);
  load_row<vectors>(tile.larger, largest);
  load_row<vectors>(tile.total, total);
  for (int v = 0; v < vectors; ++v) {
    const Vector shrink = exp_up_to_89(before[v] - largest[v]);
    shrink.store(tile.shrink + v * Vector::width);
    total[v] = total[v] * shrink;
  }
  float* scores = tile.scores;
  for (std::int64_t k = 0; k < count; ++k) {
    for (int v = 0; v < vectors; ++v, scores += Vector::width) {
      const Vector weight = exp_up_to_89(Vector::load(scores) - largest[v]);
      weight.store(scores);
      total[v] = total[v] + weight;
    }
  }
  store_row<vectors>(largest, tile.largest);
  store_row<vectors>(total, tile.total);
}

/// Adds the values of the block, each times the weight of its key. Rows beyond the last feature repeat it.
template <int vectors>
[[gnu::noinline]] void add_values(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile,
                                  sparsekit::RowRange keys) {
  Vectors<vectors> shrink;
  load_row<vectors>(tile.shrink, shrink);
  const float* values = head.value + keys.first * head.value_stride;
  for (std::int64_t first = 0; first < head.value_dim; first += kAttentionRows) {
    float* output = tile.output + first * tile.lanes;
    const float* a[kAttentionRows];
    Vectors<kAttentionRows * vectors> sum;
    for (int r = 0; r < kAttentionRows; ++r) {
      a[r] = values + smaller(first + r, head.value_dim - 1);
      for (int v = 0; v < vectors; ++v) {
        sum[r * vectors + v] = Vector::load(output + (r * vectors + v) * Vector::width) * shrink[v];
      }
    }
    multiply_rows<vectors>(a, head.value_stride, tile.scores, keys.last - keys.first, sum);
    store_row<kAttentionRows * vectors>(sum, output);
  }
}

/// Divides by the total; a query that sees nothing gets 0, as in torch.
template <int vectors>
void finish_tile(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile) {
  Vectors<vectors> factor;
  for (int i = 0; i < tile.lanes; ++i) tile.total[i] = reciprocal_or_zero(tile.total[i]);
  load_row<vectors>(tile.total, factor);
  scale_rows<vectors>(tile.output, head.value_dim, factor);
  const sparsekit::Output out{head.output, head.output_stride, head.queries, nullptr, sparsekit::Activation::none};
  store_tile_with<AttentionTile<vectors>::lanes>(tile.output, {0, head.value_dim}, out, [](Vector x) { return x; });
}

/// `head` has at most as many queries as the tile.
template <int vectors>
void attend_tile(const sparsekit::AttentionHead& head, float* scratch) {
  const AttentionTile<vectors> tile(head, scratch);
  begin_tile<vectors>(head, tile);
  const std::int64_t seen = keys_seen(head);
  for (std::int64_t first = 0; first < seen; first += sparsekit::kKeyBlock) {
    const sparsekit::RowRange keys{first, smaller(first + sparsekit::kKeyBlock, seen)};
    const MaskBlock mask = mask_block<tile.lanes>(head, keys, tile.row, tile.mask, tile.scores);
    if (mask.hidden) continue;
    score_keys<vectors>(head, tile, keys, mask);
    weigh_keys<vectors>(tile, keys.last - keys.first);
    add_values<vectors>(head, tile, keys);
  }
  finish_tile<vectors>(head, tile);
}

/// All queries of the head, in as few tiles as hold them, of about the same size: a narrow one loads more for each
/// product.
inline void attention_f32(const sparsekit::AttentionHead& head, float* scratch) {
  const std::int64_t vectors = (head.queries + Vector::width - 1) / Vector::width;
  const std::int64_t tiles = (vectors + kAttentionVectors - 1) / kAttentionVectors;
  for (std::int64_t i = 0; i < tiles; ++i) {
    const std::int64_t begin = vectors * i / tiles;
    const std::int64_t end = vectors * (i + 1) / tiles;
    const std::int64_t first = begin * Vector::width;
    const auto part = queries_of(head, {first, smaller(end * Vector::width, head.queries)});
    end - begin == 1 ? attend_tile<1>(part, scratch) : attend_tile<kAttentionVectors>(part, scratch);
  }
}

}  // namespace
