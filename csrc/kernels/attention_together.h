// Several queries that see the same keys without a mask, as those of heads that share keys: a vector of a key or a
// value is loaded, and becomes floats, once for up to three of them.
//
//   for every few keys                    their products with all queries in registers, along the features
//   for each query                        exp(score - max_score), as of a query by itself
//   for up to four vectors of features    their sums for all queries in registers; for each key weights times its row
#pragma once

#include "attention_query.h"
#include "attention_soft_cap.h"

namespace {

/// Queries and keys whose products, and queries and vectors of features whose sums, registers hold beside what is
/// multiplied.
inline constexpr int kQueriesTogether = 3;
inline constexpr int kKeysTogether = Vec::width < 4 ? Vec::width : kRegisters == 32 && Vec::width >= 8 ? 8 : 4;
inline constexpr int kFeaturesTogether = 4;

/// Floats of scores of a key block, of queries that are computed together.
inline constexpr std::int64_t kScoreFloats = kQueriesTogether * sparsekit::kKeyBlock;

/// Whether there are several queries that see the same keys, none of them hidden.
inline bool sees_alike(const sparsekit::AttentionHead& head) {
  return head.queries > 1 && !head.causal && head.mask_kind == sparsekit::MaskKind::none && head.bias == nullptr;
}

/// For each query one of each key of a vector of keys.
template <int queries>
using Products = Vec[static_cast<std::size_t>(queries)][Vec::width];

/// products[q][k] = query `q` times key `k`, lane by lane, of a vector of keys of which `count` are there; the rest
/// repeat the last one.
template <int queries, class Entry>
inline void multiply_keys(const QueryState* states, std::int64_t features, const Entry* keys, std::int64_t stride,
                          std::int64_t count, Products<queries>& products) {
  for (int first = 0; first < Vec::width; first += kKeysTogether) {
    const Entry* rows[kKeysTogether];
    for (int k = 0; k < kKeysTogether; ++k) rows[k] = keys + min(first + k, count - 1) * stride;
    VecArray<queries * kKeysTogether> sum;
    for (Vec& one : sum) one = Vec::zero();
    const auto add = [&](std::int64_t i, const auto& load) {
      VecArray<queries> x;
      for (int q = 0; q < queries; ++q) x[q] = Vec::load(states[q].query + i);
#pragma GCC unroll 8
      for (int k = 0; k < kKeysTogether; ++k) {
        const Vec key = load(rows[k] + i);
#pragma GCC unroll 3
        for (int q = 0; q < queries; ++q) sum[q * kKeysTogether + k] = fma(x[q], key, sum[q * kKeysTogether + k]);
      }
    };
    std::int64_t i = 0;
    for (; i + Vec::width <= features; i += Vec::width) add(i, [](const Entry* p) { return Vec::load(p); });
    if (i < features) add(i, [&](const Entry* p) { return load_partial(p, features - i); });
    for (int q = 0; q < queries; ++q) {
      for (int k = 0; k < kKeysTogether; ++k) products[q][first + k] = sum[q * kKeysTogether + k];
    }
  }
}

/// Scores of `keys`, [queries, kKeyBlock], hidden ones up to a whole vector, and the largest of each query.
template <int queries, class Entry, bool capped>
inline void score_together(const sparsekit::AttentionHead& head, const QueryState* states, sparsekit::Range keys,
                           float* scores, float* max_scores) {
  VecArray<queries> max_score;
  for (int q = 0; q < queries; ++q) max_score[q] = Vec::broadcast(*states[q].max_score);
  for (std::int64_t k = keys.first; k < keys.last; k += Vec::width) {
    const std::int64_t count = keys.last - k;
    Products<queries> products;
    multiply_keys<queries>(states, head.head_dim, keys_from<Entry>(head, k), head.key_stride, count, products);
    for (int q = 0; q < queries; ++q) {
      const Vec product = reduce_each(products[q]);
      float* to = scores + q * sparsekit::kKeyBlock + k - keys.first;
      with_soft_cap<capped>(head, times_scales<Entry>(product, head.key_scales, k, count)).store(to);
      for (std::int64_t i = count; i < Vec::width; ++i) to[i] = kHidden;
      max_score[q] = max(max_score[q], Vec::load(to));
    }
  }
  for (int q = 0; q < queries; ++q) max_scores[q] = reduce_max(max_score[q]);
}

/// Adds `vectors` vectors of features of values to the outputs from `feature` on; `load` loads one.
template <int queries, int vectors, class Entry, class Load>
inline void add_values_together(const sparsekit::AttentionHead& head, const QueryState* states, sparsekit::Range keys,
                                std::int64_t feature, const float* weights, const Vec* rescale, const Load& load) {
  VecArray<queries * vectors> sum;
  for (int q = 0; q < queries; ++q) {
    for (int v = 0; v < vectors; ++v) {
      sum[q * vectors + v] = Vec::load(states[q].output + feature + v * Vec::width) * rescale[q];
    }
  }
  const Entry* values = values_from<Entry>(head, keys.first) + feature;
  for (std::int64_t k = 0; k < keys.last - keys.first; ++k, values += head.value_stride) {
    VecArray<queries> weight;
    for (int q = 0; q < queries; ++q) weight[q] = Vec::broadcast(weights + q * sparsekit::kKeyBlock + k);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const Vec value = load(values + v * Vec::width);
#pragma GCC unroll 3
      for (int q = 0; q < queries; ++q) sum[q * vectors + v] = fma(weight[q], value, sum[q * vectors + v]);
    }
  }
  for (int q = 0; q < queries; ++q) {
    for (int v = 0; v < vectors; ++v) sum[q * vectors + v].store(states[q].output + feature + v * Vec::width);
  }
}

/// `queries` queries and the keys of a key block; `scores`: [kScoreFloats].
template <int queries, class Entry>
void attend_queries(const sparsekit::AttentionHead& head, const QueryState* states, sparsekit::Range keys,
                    float* scores) {
  float max_scores[static_cast<std::size_t>(queries)];
  head.soft_cap == 0.0F ? score_together<queries, Entry, false>(head, states, keys, scores, max_scores)
                        : score_together<queries, Entry, true>(head, states, keys, scores, max_scores);
  VecArray<queries> rescale;
  for (int q = 0; q < queries; ++q) {
    rescale[q] = exp_scores_few<Entry>(head, states[q], max_scores[q], keys.first, keys.last - keys.first,
                                       scores + q * sparsekit::kKeyBlock);
  }
  constexpr std::int64_t whole = kFeaturesTogether * Vec::width;
  std::int64_t f = 0;
  for (; f + whole <= head.value_dim; f += whole) {
    add_values_together<queries, kFeaturesTogether, Entry>(head, states, keys, f, scores, rescale,
                                                           [](const Entry* p) { return Vec::load(p); });
  }
  for (; f < head.value_dim; f += Vec::width) {
    add_values_together<queries, 1, Entry>(head, states, keys, f, scores, rescale,
                                           [&](const Entry* p) { return load_partial(p, head.value_dim - f); });
  }
}

/// All queries of a head, two or three at a time, and the keys of a key block. `scores`: [kScoreFloats].
template <class Entry>
void attend_together(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* sums, float* scores) {
  std::int64_t turns = (head.queries + kQueriesTogether - 1) / kQueriesTogether;
  for (std::int64_t first = 0; first < head.queries; --turns) {
    const std::int64_t count = (head.queries - first + turns - 1) / turns;
    const QueryState states[kQueriesTogether] = {query_state(head, sums, first), query_state(head, sums, first + 1),
                                                 query_state(head, sums, min(first + 2, head.queries - 1))};
    (count == 2 ? attend_queries<2, Entry> : attend_queries<3, Entry>)(head, states, keys, scores);
    first += count;
  }
}

}  // namespace
