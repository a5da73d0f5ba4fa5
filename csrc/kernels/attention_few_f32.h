// Dense attention of one head for a few queries, as in generating text: too few to lie side by side in a vector.
//
//   for each block of keys              as many rows of K and V as L1 holds for the next query
//     for each query
//       for every vector of keys        a product with each of them along the features; transposed and added up
//       for each vector of keys         exp(score - largest), with a running sum
//       for up to four vectors of the output's features, and each key      weight times its row of V
//
// A load for every multiply-add, of K as of V, but only the first query's come from further away than L1: 256 keys of
// 64 features, 4 queries, 2.9 microseconds (Zen 5) where blocks of 128 keys took 3.7 and a vector of queries 5.6.
#pragma once

#include "attention_mask.h"
#include "math.h"

namespace {

/// Most queries that are faster one by one than as a vector of them (measured with 8 and 16 floats a vector).
inline constexpr std::int64_t kMostFewQueries = Vector::width < 8 ? 3 : 7;

/// `count` rounded up to whole vectors.
constexpr std::int64_t whole_vectors(std::int64_t count) {
  return (count + Vector::width - 1) / Vector::width * Vector::width;
}

/// Working memory of a query that lasts from block to block.
struct QueryState {
  float* query;    // [head_dim to whole vectors], scaled, then zeros
  float* output;   // [value_dim to whole vectors]: sums that belong to `largest`
  float* total;    // one vector: parts of the sum of exp(score - largest)
  float* largest;  // one number, of the scores so far

  QueryState(const sparsekit::AttentionHead& head, float* scratch)
      : query(scratch),
        output(query + whole_vectors(head.head_dim)),
        total(output + whole_vectors(head.value_dim)),
        largest(total + Vector::width) {}

  static constexpr std::int64_t floats(std::int64_t head_dim, std::int64_t value_dim) {
    return whole_vectors(head_dim) + whole_vectors(value_dim) + 2 * Vector::width;
  }
};

/// Floats that all queries work with: a block's scores and its mask, then the state of each.
constexpr std::int64_t few_floats(std::int64_t head_dim, std::int64_t value_dim) {
  return 2 * sparsekit::kKeyBlock + kMostFewQueries * QueryState::floats(head_dim, value_dim);
}

/// Keys of a block, at most `kKeyBlock`: so many that their rows stay in L1 for the next query.
inline std::int64_t few_keys(const sparsekit::AttentionHead& head) {
  constexpr std::int64_t kFloats = 8192;
  const std::int64_t fitting = kFloats / (head.head_dim + head.value_dim + 1) / 16 * 16;
  if (head.queries == 1 || fitting > sparsekit::kKeyBlock) return sparsekit::kKeyBlock;
  return fitting > 16 ? fitting : 16;
}

inline void begin_query(const sparsekit::AttentionHead& head, const float* query, const QueryState& state) {
  const Vector scale = Vector::broadcast(head.scale);
  for (std::int64_t i = 0; i < head.head_dim; i += Vector::width) {
    (load_up_to(query + i, head.head_dim - i) * scale).store(state.query + i);
  }
  for (float* p = state.output; p != state.largest; p += Vector::width) Vector::zero().store(p);
  *state.largest = kLowest;
}

/// Products of a query with a vector of keys, of which `count` are there; the rest repeat the last one.
inline Vector score_vector(const float* query, std::int64_t features, const float* keys, std::int64_t stride,
                           std::int64_t count) {
  Vector sum[Vector::width];
  for (Vector& one : sum) one = Vector::zero();
  std::int64_t i = 0;
  for (; i + Vector::width <= features; i += Vector::width) {
    const Vector x = Vector::load(query + i);
    const float* key = keys + i;
    for (int k = 0; k < Vector::width; ++k) {
      sum[k] = fma(x, Vector::load(key), sum[k]);
      key += k + 1 < count ? stride : 0;
    }
  }
  if (i < features) {
    const Vector x = Vector::load(query + i);
    const float* key = keys + i;
    for (int k = 0; k < Vector::width; ++k) {
      sum[k] = fma(x, Vector::load_first(key, features - i), sum[k]);
      key += k + 1 < count ? stride : 0;
    }
  }
  transpose(sum);
  for (int half = Vector::width / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) sum[k] = sum[k] + sum[k + half];
  }
  return sum[0];
}

/// Scores of `count` keys from `first` on, and hidden ones up to a whole vector. Returns the largest.
inline float score_few(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t first,
                       std::int64_t count, const float* mask, float* scores) {
  const float* keys = head.key + first * head.key_stride;
  Vector largest = Vector::broadcast(*state.largest);
  for (std::int64_t k = 0; k < count; k += Vector::width) {
    Vector score = score_vector(state.query, head.head_dim, keys + k * head.key_stride, head.key_stride, count - k);
    if (mask != nullptr) score = score + Vector::load(mask + k);
    score.store(scores + k);
    for (std::int64_t i = count; i < k + Vector::width; ++i) scores[i] = kHidden;
    largest = larger_of(largest, Vector::load(scores + k));
  }
  return most_of(largest);
}

/// From scores to exp(score - largest). Returns what the sums of earlier blocks are multiplied with.
inline Vector weigh_few(const QueryState& state, float largest, std::int64_t count, float* scores) {
  const Vector shrink = exp_up_to_89(Vector::broadcast(*state.largest - largest));
  *state.largest = largest;
  Vector total = Vector::load(state.total) * shrink;
  for (std::int64_t k = 0; k < count; k += Vector::width) {
    const Vector weight = exp_up_to_89(Vector::load(scores + k) - Vector::broadcast(largest));
    weight.store(scores + k);
    total = total + weight;
  }
  total.store(state.total);
  return shrink;
}

/// Adds `vectors` vectors of features of the block's values, of which the last one may have `count` features only. Few
/// sums would wait for their latency, so several keys add to sums of their own.
template <int vectors, class Load>
inline void add_features(const float* values, std::int64_t stride, const float* weights, std::int64_t count,
                         Vector shrink, float* output, const Load& load) {
  constexpr int chains = 8 / vectors;
  Vectors<chains * vectors> sum;
  for (int v = 0; v < vectors; ++v) sum[v] = Vector::load(output + v * Vector::width) * shrink;
  for (int i = vectors; i < chains * vectors; ++i) sum[i] = Vector::zero();
  std::int64_t k = 0;
  for (; k + chains <= count; k += chains) {
    for (int c = 0; c < chains; ++c) {
      const Vector weight = Vector::broadcast(weights + k + c);
      for (int v = 0; v < vectors; ++v) {
        sum[c * vectors + v] = fma(weight, load(values + v * Vector::width), sum[c * vectors + v]);
      }
      values += stride;
    }
  }
  for (; k < count; ++k, values += stride) {
    const Vector weight = Vector::broadcast(weights + k);
    for (int v = 0; v < vectors; ++v) sum[v] = fma(weight, load(values + v * Vector::width), sum[v]);
  }
  for (int i = vectors; i < chains * vectors; ++i) sum[i % vectors] = sum[i % vectors] + sum[i];
  for (int v = 0; v < vectors; ++v) sum[v].store(output + v * Vector::width);
}

inline void add_few(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t first,
                    std::int64_t count, const float* weights, Vector shrink) {
  const auto whole = [](const float* p) { return Vector::load(p); };
  const float* values = head.value + first * head.value_stride;
  const std::int64_t features = head.value_dim;
  std::int64_t i = 0;
  for (; i + 4 * Vector::width <= features; i += 4 * Vector::width) {
    add_features<4>(values + i, head.value_stride, weights, count, shrink, state.output + i, whole);
  }
  for (; i + 2 * Vector::width <= features; i += 2 * Vector::width) {
    add_features<2>(values + i, head.value_stride, weights, count, shrink, state.output + i, whole);
  }
  for (; i < features; i += Vector::width) {
    const auto part = [&](const float* p) { return load_up_to(p, features - i); };
    add_features<1>(values + i, head.value_stride, weights, count, shrink, state.output + i, part);
  }
}

inline void finish_query(const sparsekit::AttentionHead& head, const QueryState& state, float* output) {
  float total = 0.0F;
  for (int i = 0; i < Vector::width; ++i) total += state.total[i];
  const Vector factor = Vector::broadcast(reciprocal_or_zero(total));
  for (std::int64_t i = 0; i < head.value_dim; i += Vector::width) {
    store_up_to(Vector::load(state.output + i) * factor, output + i, head.value_dim - i);
  }
}

/// One query and the keys `[first, first + count)`; `scores` and `row` have room for a block.
inline void attend_block(const sparsekit::AttentionHead& head, const QueryState& state, std::int64_t query,
                         std::int64_t first, std::int64_t count, float* scores, float* row) {
  const bool masked = head.mask_kind != sparsekit::MaskKind::none;
  if (masked && !mask_row(head, query, first, count, row)) return;
  const float largest = score_few(head, state, first, count, masked ? row : nullptr, scores);
  const Vector shrink = weigh_few(state, largest, count, scores);
  add_few(head, state, first, count, scores, shrink);
}

/// All queries of a head, at most `kMostFewQueries`.
inline void attention_few_f32(const sparsekit::AttentionHead& head, float* scratch) {
  float* row = scratch + sparsekit::kKeyBlock;
  float* states = row + sparsekit::kKeyBlock;
  const auto state = [&](std::int64_t i) {
    return QueryState(head, states + i * QueryState::floats(head.head_dim, head.value_dim));
  };
  for (std::int64_t i = 0; i < head.queries; ++i) begin_query(head, head.query + i * head.query_stride, state(i));
  const std::int64_t block = few_keys(head);
  for (std::int64_t first = 0; first < head.keys; first += block) {
    for (std::int64_t i = 0; i < head.queries; ++i) {
      const std::int64_t count = smaller(keys_seen(queries_of(head, {i, i + 1})) - first, block);
      if (count > 0) attend_block(head, state(i), i, first, count, scratch, row);
    }
  }
  for (std::int64_t i = 0; i < head.queries; ++i) finish_query(head, state(i), head.output + i * head.output_stride);
}

}  // namespace
