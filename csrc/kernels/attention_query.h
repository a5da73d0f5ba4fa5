// State of a query that is computed alone: its features, and sums relative to its largest score so far.
#pragma once

#include "attention_mask.h"
#include "attention_rows.h"
#include "math.h"

namespace {

/// Largest number of queries that is faster one by one than side by side in a vector (measured with 8 and 16 lanes).
inline constexpr std::int64_t kMaxFewQueries = Vec::width < 8 ? 3 : 7;

/// `count` rounded up to whole vectors.
constexpr std::int64_t whole_vectors(std::int64_t count) { return (count + Vec::width - 1) / Vec::width * Vec::width; }

/// Sums of a query that last from key block to key block.
struct QueryState {
  float* query;      // [head_dim to whole vectors], scaled, then zeros
  float* output;     // [value_dim to whole vectors]: sums that belong to `max_score`
  float* exp_sum;    // one vector: parts of the sum of exp(score - max_score)
  float* max_score;  // one number, of the scores so far

  QueryState(const sparsekit::AttentionHead& head, float* scratch)
      : query(scratch),
        output(query + whole_vectors(head.head_dim)),
        exp_sum(output + whole_vectors(head.value_dim)),
        max_score(exp_sum + Vec::width) {}

  static constexpr std::int64_t floats(std::int64_t head_dim, std::int64_t value_dim) {
    return whole_vectors(head_dim) + whole_vectors(value_dim) + 2 * Vec::width;
  }
};

/// Floats of the sums of all queries of a head, in a part of its keys.
inline std::int64_t few_sums(std::int64_t queries, std::int64_t head_dim, std::int64_t value_dim) {
  return queries * QueryState::floats(head_dim, value_dim);
}

inline void begin_query(const sparsekit::AttentionHead& head, const float* query, const QueryState& state) {
  const Vec scale = Vec::broadcast(head.scale);
  for (std::int64_t i = 0; i < head.head_dim; i += Vec::width) {
    (load_partial(query + i, head.head_dim - i) * scale).store(state.query + i);
  }
  for (float* p = state.output; p != state.max_score; p += Vec::width) Vec::zero().store(p);
  *state.max_score = kLowest;
}

/// The sum over the lanes of each of `Vec::width` vectors, which are overwritten.
inline Vec reduce_each(Vec (&each)[Vec::width]) {
  transpose(each);
  for (int half = Vec::width / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) each[k] = each[k] + each[k + half];
  }
  return each[0];
}

/// From scores to exp(score - max_score), times the scale of the value where it has one. Returns what the sums of
/// earlier key blocks are multiplied with.
template <class Entry>
inline Vec exp_scores_few(const sparsekit::AttentionHead& head, const QueryState& state, float max_score,
                          std::int64_t first, std::int64_t count, float* scores) {
  const Vec rescale = exp_up_to_89(Vec::broadcast(*state.max_score - max_score));
  *state.max_score = max_score;
  Vec exp_sum = Vec::load(state.exp_sum) * rescale;
  for (std::int64_t k = 0; k < count; k += Vec::width) {
    const Vec weight = exp_up_to_89(Vec::load(scores + k) - Vec::broadcast(max_score));
    times_scales<Entry>(weight, head.value_scales, first + k, count - k).store(scores + k);
    exp_sum = exp_sum + weight;
  }
  exp_sum.store(state.exp_sum);
  return rescale;
}

inline void finish_query(const sparsekit::AttentionHead& head, const QueryState& state, float* output) {
  float exp_sum = 0.0F;
  for (int i = 0; i < Vec::width; ++i) exp_sum += state.exp_sum[i];
  const Vec factor = Vec::broadcast(reciprocal_or_zero(exp_sum));
  for (std::int64_t i = 0; i < head.value_dim; i += Vec::width) {
    store_partial(Vec::load(state.output + i) * factor, output + i, head.value_dim - i);
  }
}

/// The sums of query `i`, among those of a part of the keys.
inline QueryState query_state(const sparsekit::AttentionHead& head, float* sums, std::int64_t i) {
  return {head, sums + few_sums(i, head.head_dim, head.value_dim)};
}

/// Adds the sums of another part of the keys.
inline void join_sums(const QueryState& sums, const QueryState& part) {
  const float max_score = *sums.max_score < *part.max_score ? *part.max_score : *sums.max_score;
  const Vec rescale = exp_up_to_89(Vec::broadcast(*sums.max_score - max_score));
  const Vec rescale_part = exp_up_to_89(Vec::broadcast(*part.max_score - max_score));
  *sums.max_score = max_score;
  for (std::int64_t i = 0; i < sums.max_score - sums.output; i += Vec::width) {
    fma(Vec::load(part.output + i), rescale_part, Vec::load(sums.output + i) * rescale).store(sums.output + i);
  }
}

}  // namespace
