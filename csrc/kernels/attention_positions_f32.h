// Disentangled attention (He et al., "DeBERTa"): what rows of tables, one for each bucket of distances, add to scores.
//
//   score(i, j) += scale * (query[i] . position_key[row(i - j)] + key[j] . position_query[row(i - j)])
//
// A tile of queries and a key block lie few distances apart, whose rows are each multiplied once with the tile, by the
// loop that multiplies it with keys; so are the rows near a tile of keys with that. Of each product a score takes the
// one of its distance: along a diagonal. Products with keys are transposed first, so that those of a key with distances
// that follow one another lie in a row; near the query each distance has a row of its own, and whole vectors are added.
#pragma once

#include "attention_mask.h"
#include "attention_rows.h"
#include "attention_tile.h"

namespace {

/// The rows of the distances between some queries and keys, each once.
template <int tile>
struct NearRows {
  static constexpr std::size_t size = static_cast<std::size_t>(sparsekit::kKeyBlock + tile);
  std::int32_t rows[size];    // [count]
  std::int32_t places[size];  // in `rows`, of each distance from the smallest on
  std::int64_t count;

  /// Distances from that of query 0 and the last key to that of the last query and the first key.
  NearRows(const sparsekit::AttentionHead& head, sparsekit::Range keys) : count(0) {
    const std::int32_t* distance_rows = head.distance_rows - (keys.last - 1);
    const std::int64_t distances = head.queries + keys.last - keys.first - 1;
    for (std::int64_t d = 0; d < distances; ++d) {
      if (d == 0 || distance_rows[d] != distance_rows[d - 1]) rows[count++] = distance_rows[d];
      places[d] = static_cast<std::int32_t>(count - 1);
    }
  }
};

/// products[r] = table[rows[r]] times the tile [features, lanes], for all rows; up to whole products.
template <int vectors>
[[gnu::noinline]] void multiply_table(const float* table, std::int64_t stride,
                                      const NearRows<vectors * Vec::width>& near, const float* tile,
                                      std::int64_t features, float* products) {
  for (std::int64_t first = 0; first < near.count; first += kAttentionRows) {
    const float* a[kAttentionRows];
    for (int r = 0; r < kAttentionRows; ++r) a[r] = table + near.rows[min(first + r, near.count - 1)] * stride;
    VecArray<kAttentionRows * vectors> sum;
    for (Vec& one : sum) one = Vec::zero();
    multiply_rows<vectors>(a, 1, tile, features, sum);
    store_row<kAttentionRows * vectors>(sum, products + first * vectors * Vec::width);
  }
}

/// Adds the products of the tile's queries to scores[keys, queries].
template <int vectors>
void add_position_keys(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile, sparsekit::Range keys,
                       float* scores) {
  const NearRows<AttentionTile<vectors>::queries> near(head, keys);
  multiply_table<vectors>(head.position_key, head.position_stride, near, tile.query, head.head_dim, tile.products);
  const std::int32_t* places = near.places + (keys.last - 1 - keys.first);
  for (std::int64_t k = keys.first; k < keys.last; ++k, --places, scores += tile.queries) {
    for (std::int64_t i = 0; i < head.queries; ++i) scores[i] += tile.products[places[i] * tile.queries + i];
  }
}

/// output[i] += products[places[i]] for `count` places, each of which is the one before it or the next.
inline void add_places(const float* products, const std::int32_t* places, std::int64_t count, float* output) {
  if (places[count - 1] - places[0] != count - 1) {
    for (std::int64_t i = 0; i < count; ++i) output[i] += products[places[i]];
    return;
  }
  products += places[0];
  for (std::int64_t i = 0; i < count; i += Vec::width) {
    const std::int64_t part = count - i;
    store_partial(load_partial(output + i, part) + load_partial(products + i, part), output + i, part);
  }
}

/// Adds the products of at most `queries` keys to scores[keys, queries].
template <int vectors>
void add_position_queries(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile,
                          sparsekit::Range keys, float* scores) {
  constexpr std::int64_t lanes = AttentionTile<vectors>::queries;
  const std::int64_t count = keys.last - keys.first;
  const NearRows<lanes> near(head, keys);
  pack_scaled<vectors>({keys_from<float>(head, keys.first), head.key_stride, count}, head, tile.keys);
  multiply_table<vectors>(head.position_query, head.position_stride, near, tile.keys, head.head_dim, tile.products);
  const sparsekit::Output rows{tile.by_key, 2 * lanes, count, nullptr, sparsekit::Activation::none};
  store_tile_with<lanes>(tile.products, nullptr, {0, near.count}, rows, [](Vec x) { return x; });
  const std::int32_t* places = near.places + (count - 1);
  for (std::int64_t k = 0; k < count; ++k, --places) {
    add_places(tile.by_key + k * 2 * lanes, places, head.queries, scores + k * lanes);
  }
}

/// Adds what both tables say to the mask of a key block, or makes one of it.
template <int vectors>
void add_positions(const sparsekit::AttentionHead& head, const AttentionTile<vectors>& tile, sparsekit::Range keys,
                   MaskBlock& mask) {
  const std::int64_t lanes = tile.queries;
  if (mask.of_pairs == nullptr) fill(tile.mask, tile.mask + (keys.last - keys.first) * lanes, 0.0F);
  mask.of_pairs = tile.mask;
  if (head.position_key != nullptr) add_position_keys<vectors>(head, tile, keys, tile.mask);
  if (head.position_query == nullptr) return;
  for (std::int64_t first = keys.first; first < keys.last; first += lanes) {
    add_position_queries<vectors>(head, tile, {first, min(first + lanes, keys.last)},
                                  tile.mask + (first - keys.first) * lanes);
  }
}

}  // namespace
