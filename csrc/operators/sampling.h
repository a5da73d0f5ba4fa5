// Sample the next token from logits: greedy, or with the filters of transformers' logits processors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sparsekit {

/// How a token is chosen. The fields apply in this order: repetition_penalty, temperature, top_k, top_p, min_p.
struct SamplingOptions {
  float temperature = 0.0F;         // divides logits; 0: the token of the largest logit, without the filters below
  std::int32_t top_k = 0;           // only tokens whose logit is among the k largest; 0: all
  float top_p = 1.0F;               // only the fewest tokens whose probabilities add up to top_p; 1: all
  float min_p = 0.0F;               // only tokens at least min_p times as probable as the best; 0: all
  float repetition_penalty = 1.0F;  // divides positive logits of tokens seen so far, multiplies negative ones
};

/// Throws std::invalid_argument for impossible values: expected, and got.
void check_sampling(const SamplingOptions& options);

/// Samples tokens. Not thread-safe: it keeps its working memory.
class Sampler {
 public:
  /// Throws std::invalid_argument as `check_sampling`.
  Sampler(const SamplingOptions& options, std::uint64_t seed);

  /// The next token. It depends on the arguments, the options and the seed alone: nothing is carried from one step to
  /// the next. The lowest of equal tokens is the greedy one.
  ///   logits: [vocabulary]; minus infinity: never this token.
  ///   seen: tokens so far, the prompt's among them, in any order; those beyond the vocabulary do not count.
  ///   step: the number of the token; another one draws another number.
  /// Throws std::invalid_argument for an empty vocabulary and negative tokens, std::runtime_error for logits that hold
  /// NaN or infinity, or nothing but minus infinity.
  std::int32_t next(std::span<const float> logits, std::span<const std::int32_t> seen, std::uint64_t step);

 private:
  struct Candidate {
    float weight;  // probability, relative to that of the most probable token
    std::int32_t token;
    bool operator<(const Candidate& other) const;
  };

  std::span<const float> penalized(std::span<const float> logits, std::span<const std::int32_t> seen);
  float top_k_threshold(std::span<const float> logits);
  void collect(std::span<const float> logits, float peak);
  void keep_top_p();
  void keep_min_p();
  double total() const;
  std::int32_t draw(std::uint64_t step) const;

  SamplingOptions options_;
  std::uint64_t seed_;
  std::vector<float> penalized_;
  std::vector<float> largest_;
  std::vector<Candidate> candidates_;
};

/// log(softmax(logits)[token]), of logits as the model gives them. Throws std::invalid_argument where there is no such
/// token, std::runtime_error as `Sampler::next`.
double log_probability(std::span<const float> logits, std::int32_t token);

}  // namespace sparsekit
