// Dense attention of one head for a few queries, as in generating text: too few to lie side by side in a vector.
//
//   for each key block                  as many rows of K and V as L1 holds for the next query
//     for each query
//       for every vector of keys        a product with each of them along the features; transposed and added up
//       for each vector of keys         exp(score - max_score), with a running sum
//       for up to four vectors of the output's features, and each key      weight times its row of V
//
// A load for every multiply-add, of K as of V, but only the first query's come from further away than L1: 256 keys of
// 64 features, 4 queries, 2.9 microseconds (Zen 5) where key blocks of 128 took 3.7 and a vector of queries 5.6.
// Keys and values of 16 and 8 bits become floats in registers; the scale of a key multiplies its score, that of a value
// its weight.
// Queries that see the same keys, as those of heads that share them, take this in turns of up to three
// (attention_together.h).
//
// Parts of the keys may be computed apart, by several threads: each leaves sums that belong to its own largest score,
// and `finish_few` rescales and adds them (Dao et al., "Flash-Decoding for long-context inference").
#pragma once

#include "attention_query.h"
#include "attention_soft_cap.h"
#include "attention_together.h"

namespace {

/// Floats that a part of the keys is computed with: scores of a key block for queries that are computed together, and
/// its mask.
inline constexpr std::int64_t kFewFloats = kScoreFloats + sparsekit::kKeyBlock;

/// Keys per key block, at most `kKeyBlock`: few enough for their rows to stay in L1 for the next query.
template <class Entry>
std::int64_t few_keys(const sparsekit::AttentionHead& head) {
  constexpr std::int64_t kNumbers = 32768 / sizeof(Entry);
  const std::int64_t fitting = kNumbers / (head.head_dim + head.value_dim + 1) / 16 * 16;
  if (head.queries == 1 || fitting > sparsekit::kKeyBlock) return sparsekit::kKeyBlock;
  return fitting > 16 ? fitting : 16;
}

/// Products of a query with a vector of keys, of which `count` are there; the rest repeat the last one.
template <class Entry>
inline Vec score_vector(const float* query, std::int64_t features, const Entry* keys, std::int64_t stride,
                        std::int64_t count) {
  Vec sum[Vec::width];
  for (Vec& one : sum) one = Vec::zero();
  std::int64_t i = 0;
  for (; i + Vec::width <= features; i += Vec::width) {
    const Vec x = Vec::load(query + i);
    const Entry* key = keys + i;
    for (int k = 0; k < Vec::width; ++k) {
      sum[k] = fma(x, Vec::load(key), sum[k]);
      key += k + 1 < count ? stride : 0;
    }
  }
  if (i < features) {
    const Vec x = Vec::load(query + i);
    const Entry* key = keys + i;
    for (int k = 0; k < Vec::width; ++k) {
      sum[k] = fma(x, load_partial(key, features - i), sum[k]);
      key += k + 1 < count ? stride : 0;
    }
  }
  return reduce_each(sum);
}

/// Scores of `count` keys from `first` on, and hidden ones up to a whole vector. Returns the largest.
template <class Entry, bool capped>
inline float score_few(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t first,
                       std::int64_t count, const float* mask, float* scores) {
  Vec max_score = Vec::broadcast(*state.max_score);
  for (std::int64_t k = 0; k < count; k += Vec::width) {
    const Entry* keys = keys_from<Entry>(head, first + k);
    const Vec product = score_vector(state.query, head.head_dim, keys, head.key_stride, count - k);
    Vec score = with_soft_cap<capped>(head, times_scales<Entry>(product, head.key_scales, first + k, count - k));
    if (mask != nullptr) score = score + Vec::load(mask + k);
    score.store(scores + k);
    for (std::int64_t i = count; i < k + Vec::width; ++i) scores[i] = kHidden;
    max_score = max(max_score, Vec::load(scores + k));
  }
  return reduce_max(max_score);
}

/// Adds `vectors` vectors of features of the key block's values, of which the last one may have `count` features only.
/// Few sums would wait for their latency, so several keys add to sums of their own.
template <int vectors, class Entry, class Load>
inline void add_features(const Entry* values, std::int64_t stride, const float* weights, std::int64_t count,
                         Vec rescale, float* output, const Load& load) {
  constexpr int chains = 8 / vectors;
  VecArray<chains * vectors> sum;
  for (int v = 0; v < vectors; ++v) sum[v] = Vec::load(output + v * Vec::width) * rescale;
  for (int i = vectors; i < chains * vectors; ++i) sum[i] = Vec::zero();
  std::int64_t k = 0;
  for (; k + chains <= count; k += chains) {
    for (int c = 0; c < chains; ++c) {
      const Vec weight = Vec::broadcast(weights + k + c);
      for (int v = 0; v < vectors; ++v) {
        sum[c * vectors + v] = fma(weight, load(values + v * Vec::width), sum[c * vectors + v]);
      }
      values += stride;
    }
  }
  for (; k < count; ++k, values += stride) {
    const Vec weight = Vec::broadcast(weights + k);
    for (int v = 0; v < vectors; ++v) sum[v] = fma(weight, load(values + v * Vec::width), sum[v]);
  }
  for (int i = vectors; i < chains * vectors; ++i) sum[i % vectors] = sum[i % vectors] + sum[i];
  for (int v = 0; v < vectors; ++v) sum[v].store(output + v * Vec::width);
}

template <class Entry>
inline void add_few(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t first,
                    std::int64_t count, const float* weights, Vec rescale) {
  const auto whole = [](const Entry* p) { return Vec::load(p); };
  const Entry* values = values_from<Entry>(head, first);
  const std::int64_t features = head.value_dim;
  std::int64_t i = 0;
  for (; i + 4 * Vec::width <= features; i += 4 * Vec::width) {
    add_features<4>(values + i, head.value_stride, weights, count, rescale, state.output + i, whole);
  }
  for (; i + 2 * Vec::width <= features; i += 2 * Vec::width) {
    add_features<2>(values + i, head.value_stride, weights, count, rescale, state.output + i, whole);
  }
  for (; i < features; i += Vec::width) {
    const auto part = [&](const Entry* p) { return load_partial(p, features - i); };
    add_features<1>(values + i, head.value_stride, weights, count, rescale, state.output + i, part);
  }
}

/// Adds the biases of a query, from its first key's on down, to the mask of `count` keys, if there is one.
inline void add_biases(const float* of_first_key, std::int64_t count, bool masked, float* row) {
  for (std::int64_t k = 0; k < count; ++k) row[k] = (masked ? row[k] : 0.0F) + of_first_key[-k];
}

/// One query and the keys `[first, first + count)`; `scores` and `row` have room for a key block.
template <class Entry>
void attend_key_block(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t query,
                      std::int64_t first, std::int64_t count, float* scores, float* row) {
  const bool masked = head.mask_kind != sparsekit::MaskKind::none;
  if (masked && !mask_row(head, query, first, count, row)) return;
  if (head.bias != nullptr) add_biases(head.bias + query - first, count, masked, row);
  const bool added = masked || head.bias != nullptr;
  const float* mask = added ? row : nullptr;
  const float max_score = head.soft_cap == 0.0F ? score_few<Entry, false>(head, state, first, count, mask, scores)
                                                : score_few<Entry, true>(head, state, first, count, mask, scores);
  const Vec rescale = exp_scores_few<Entry>(head, state, max_score, first, count, scores);
  add_few<Entry>(head, state, first, count, scores, rescale);
}

/// Sums over `keys` for all queries of a head, at most `kMaxFewQueries`. `scratch`: [kFewFloats].
template <class Entry>
void attend_keys_few(const sparsekit::AttentionHead& head, sparsekit::Range keys, float* sums, float* scratch) {
  float* row = scratch + kScoreFloats;
  for (std::int64_t i = 0; i < head.queries; ++i) {
    begin_query(head, head.query + i * head.query_stride, query_state(head, sums, i));
  }
  const std::int64_t key_block = few_keys<Entry>(head);
  for (std::int64_t block = max(keys.first, first_key_seen(head)); block < keys.last; block += key_block) {
    const std::int64_t behind = min(block + key_block, keys.last);
    if (sees_alike(head)) {
      attend_together<Entry>(head, {block, behind}, sums, scratch);
      continue;
    }
    for (std::int64_t i = 0; i < head.queries; ++i) {
      const sparsekit::AttentionHead query = queries_of(head, {i, i + 1});
      const std::int64_t first = max(block, first_key_seen(query));
      const std::int64_t count = min(keys_seen(query), behind) - first;
      if (count > 0) attend_key_block<Entry>(head, query_state(head, sums, i), i, first, count, scratch, row);
    }
  }
}

/// Outputs of all queries, from the sums of `parts` parts of the keys, one after the other.
inline void finish_few(const sparsekit::AttentionHead& head, std::int64_t parts, float* sums) {
  for (std::int64_t i = 0; i < head.queries; ++i) {
    const QueryState state = query_state(head, sums, i);
    for (std::int64_t p = 1; p < parts; ++p) join_sums(state, query_state(head, sums, p * head.queries + i));
    finish_query(head, state, head.output + i * head.output_stride);
  }
}

/// All queries of a head and all keys. `scratch`: of `attend_keys_few`, then the sums.
template <class Entry>
void attention_few(const sparsekit::AttentionHead& head, float* scratch) {
  attend_keys_few<Entry>(head, {0, head.keys}, scratch + kFewFloats, scratch);
  finish_few(head, 1, scratch + kFewFloats);
}

}  // namespace
