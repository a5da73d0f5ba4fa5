// Shared by the attention kernels: the product of rows with a tile, and the working memory of a tile of queries.
#pragma once

#include "attention_mask.h"
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
                                                 const float* b, std::int64_t steps, Vec* sum) {
  for (std::int64_t t = 0; t < steps; ++t) {
    VecArray<vectors> x;
    for (int v = 0; v < vectors; ++v) x[v] = Vec::load(b + (t * vectors + v) * Vec::width);
    for (int r = 0; r < kAttentionRows; ++r) {
      const Vec scale = Vec::broadcast(a[r] + t * step);
      for (int v = 0; v < vectors; ++v) sum[r * vectors + v] = fma(scale, x[v], sum[r * vectors + v]);
    }
  }
}

/// Working memory of a tile. Rows that pad it to whole products are written, and never read for a result.
template <int vectors>
struct AttentionTile {
  static constexpr int queries = vectors * Vec::width;
  float* query;          // [head_dim, queries], scaled
  float* output;         // [padded value_dim, queries]: sums that belong to `max_score`
  float* scores;         // [padded kKeyBlock, queries], then weights
  float* mask;           // [kKeyBlock, queries]
  float* row;            // [kKeyBlock]: the mask where all queries share it
  float* biases;         // [kKeyBlock + queries]
  float* max_score;      // [queries], of the scores so far
  float* new_max_score;  // [queries], with those of the key block
  float* rescale;        // [queries]: what sums of earlier key blocks are multiplied with
  float* exp_sum;        // [queries], of exp(score - max_score)
  float* keys;           // [head_dim, queries]: as many keys, scaled
  float* products;       // [padded kKeyBlock + queries, queries], of rows of tables
  float* by_key;         // [queries, 2 * queries], the same of keys

  AttentionTile(const sparsekit::AttentionHead& head, float* scratch)
      : query(scratch),
        output(query + head.head_dim * queries),
        scores(output + padded_rows(head.value_dim) * queries),
        mask(scores + padded_rows(sparsekit::kKeyBlock) * queries),
        row(mask + sparsekit::kKeyBlock * queries),
        biases(row + sparsekit::kKeyBlock),
        max_score(biases + sparsekit::kKeyBlock + queries),
        new_max_score(max_score + queries),
        rescale(new_max_score + queries),
        exp_sum(rescale + queries),
        keys(exp_sum + queries),
        products(keys + head.head_dim * queries),
        by_key(products + padded_rows(sparsekit::kKeyBlock + queries) * queries) {}

  static constexpr std::int64_t floats(std::int64_t head_dim, std::int64_t value_dim) {
    const std::int64_t rows = 2 * head_dim + padded_rows(value_dim) + padded_rows(sparsekit::kKeyBlock) +
                              padded_rows(sparsekit::kKeyBlock + queries) + 2 * queries;
    return (rows + sparsekit::kKeyBlock + 5) * queries + 2 * sparsekit::kKeyBlock;
  }
};

template <int vectors>
inline void load_row(const float* p, VecArray<vectors>& row) {
  for (int v = 0; v < vectors; ++v) row[v] = Vec::load(p + v * Vec::width);
}

template <int vectors>
inline void store_row(const VecArray<vectors>& row, float* p) {
  for (int v = 0; v < vectors; ++v) row[v].store(p + v * Vec::width);
}

inline void fill(float* first, const float* last, float number) {
  for (float* p = first; p != last; p += Vec::width) Vec::broadcast(number).store(p);
}

/// rows[i] *= factor for `count` rows.
template <int vectors>
inline void scale_rows(float* rows, std::int64_t count, const VecArray<vectors>& factor) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (int v = 0; v < vectors; ++v, rows += Vec::width) (Vec::load(rows) * factor[v]).store(rows);
  }
}

/// Tokens of one head, a tile or fewer, transposed and scaled: [head_dim, queries].
template <int vectors>
void pack_scaled(const sparsekit::Input& tokens, const sparsekit::AttentionHead& head, float* packed) {
  pack_tile_f32<AttentionTile<vectors>::queries>(tokens, {0, head.head_dim}, 0, packed);
  VecArray<vectors> scale;
  for (Vec& one : scale) one = Vec::broadcast(head.scale);
  scale_rows<vectors>(packed, head.head_dim, scale);
}

}  // namespace
