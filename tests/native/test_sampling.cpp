// Sampler against the filters in double precision over sorted tokens: which tokens may be drawn, how often each is
// (chi-squared), ties, penalties, seeds, logits that must be refused. The log-probability against a sum in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "layer.h"
#include "operators/sampling.h"

using namespace sparsekit;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;
using Ids = std::vector<std::int32_t>;

/// In [-range, range).
Logits random_logits(std::int64_t vocabulary, float range, unsigned seed) {
  Logits logits = random_floats(vocabulary, seed);
  for (float& logit : logits) logit *= range;
  return logits;
}

std::vector<double> softmax(std::vector<double> scores) {
  const double peak = *std::max_element(scores.begin(), scores.end());
  for (double& score : scores) score = std::exp(score - peak);
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  for (double& score : scores) score /= sum;
  return scores;
}

std::vector<double> penalized(const Logits& logits, const Ids& seen, double penalty) {
  std::vector<double> scores(logits.begin(), logits.end());
  for (const std::int32_t token : std::set<std::int32_t>(seen.begin(), seen.end())) {
    double& score = scores[static_cast<std::size_t>(token)];
    score = score < 0 ? score * penalty : score / penalty;
  }
  return scores;
}

void keep_top_k(std::vector<double>& scores, std::size_t k) {
  std::vector<double> sorted = scores;
  std::sort(sorted.rbegin(), sorted.rend());
  for (double& score : scores) {
    if (score < sorted[k - 1]) score = -INFINITY;
  }
}

void keep_top_p(std::vector<double>& scores, double top_p) {
  const std::vector<double> probabilities = softmax(scores);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return probabilities[a] > probabilities[b]; });
  double before = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && before >= top_p) scores[order[i]] = -INFINITY;
    before += probabilities[order[i]];
  }
}

void keep_min_p(std::vector<double>& scores, double min_p) {
  const std::vector<double> probabilities = softmax(scores);
  const double least = min_p * *std::max_element(probabilities.begin(), probabilities.end());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (probabilities[i] < least) scores[i] = -INFINITY;
  }
}

/// With what probability each token is to be drawn.
std::vector<double> expected(const Logits& logits, const Ids& seen, const SamplingOptions& options) {
  std::vector<double> scores = penalized(logits, seen, options.repetition_penalty);
  for (double& score : scores) score /= options.temperature;
  const auto k = static_cast<std::size_t>(options.top_k);
  if (k > 0 && k < scores.size()) keep_top_k(scores, k);
  if (options.top_p < 1) keep_top_p(scores, options.top_p);
  if (options.min_p > 0) keep_min_p(scores, options.min_p);
  return softmax(scores);
}

std::string described(const SamplingOptions& o) {
  return "temperature " + std::to_string(o.temperature) + ", top_k " + std::to_string(o.top_k) + ", top_p " +
         std::to_string(o.top_p) + ", min_p " + std::to_string(o.min_p) + ", penalty " +
         std::to_string(o.repetition_penalty);
}

/// How often each token is drawn in steps 0 to `draws` - 1.
std::vector<double> counted(const Logits& logits, const Ids& seen, const SamplingOptions& options,
                            std::uint64_t draws) {
  Sampler sampler(options, 11);
  std::vector<double> counts(logits.size());
  for (std::uint64_t step = 0; step < draws; ++step) {
    counts[static_cast<std::size_t>(sampler.next(logits, seen, step))] += 1;
  }
  return counts;
}

/// Tokens of probability 0 are never drawn, and the others as often as they should be: the chi-squared statistic lies
/// within six of its standard deviations, sqrt(2 * (tokens - 1)), of its mean, tokens - 1.
void check_frequencies(const Logits& logits, const Ids& seen, const SamplingOptions& options) {
  constexpr std::uint64_t kDraws = 5'000;
  const std::vector<double> probabilities = expected(logits, seen, options);
  const std::vector<double> counts = counted(logits, seen, options, kDraws);
  double statistic = 0;
  double freedom = -1;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double mean = probabilities[i] * kDraws;
    if (mean == 0) CHECK_CASE(counts[i] == 0, described(options) + ": token " + std::to_string(i));
    if (mean < 5) continue;
    statistic += (counts[i] - mean) * (counts[i] - mean) / mean;
    freedom += 1;
  }
  CHECK_CASE(statistic <= freedom + 6 * std::sqrt(2 * std::max(1.0, freedom)),
             described(options) + ": chi-squared " + std::to_string(statistic) + " of " + std::to_string(freedom));
}

void test_frequencies() {
  const Logits logits = random_logits(37, 3.0F, 1);
  const Ids seen{3, 5, 5, 36, 3};
  for (const float temperature : {0.5F, 1.0F, 1.7F}) {
    for (const std::int32_t top_k : {0, 1, 9, 36, 37, 1000}) {
      for (const float top_p : {1.0F, 0.83F, 0.0F}) {
        for (const float min_p : {0.0F, 0.11F, 1.0F})
          check_frequencies(logits, seen, {temperature, top_k, top_p, min_p, 1.3F});
      }
    }
  }
  check_frequencies(logits, seen, {1.0F, 0, 0.9F, 0.0F, 0.7F});
  check_frequencies({0.5F}, {0}, {1.0F, 5, 0.5F, 0.5F, 2.0F});
  check_frequencies({-kInfinity, 1.0F, -kInfinity, 0.5F, 0.0F}, {0}, {1.0F, 4, 0.99F, 0.0F, 1.5F});
}

/// Every token drawn is one that the filters keep; the boundary of top_p may be off by rounding.
void test_large_vocabulary() {
  for (const std::int64_t vocabulary : {49'152, 262'144}) {
    const Logits logits = random_logits(vocabulary, 12.0F, 3);
    for (const SamplingOptions& options :
         {SamplingOptions{1.0F, 50, 0.9F, 0.0F, 1.0F}, SamplingOptions{0.7F, 0, 0.3F, 0.0F, 1.0F},
          SamplingOptions{1.0F, 0, 1.0F, 0.2F, 1.1F}}) {
      SamplingOptions wider = options;
      wider.top_p = options.top_p == 1.0F ? 1.0F : options.top_p + 1e-5F;
      const std::vector<double> probabilities = expected(logits, {7}, wider);
      Sampler sampler(options, 1);
      for (std::uint64_t step = 0; step < 20; ++step) {
        const std::int32_t token = sampler.next(logits, Ids{7}, step);
        CHECK_CASE(probabilities[static_cast<std::size_t>(token)] > 0, described(options));
      }
    }
  }
}

void test_greedy() {
  Sampler greedy({}, 0);
  for (const std::int64_t vocabulary : {1, 15, 16, 17, 100, 1003}) {
    const Logits logits = random_logits(vocabulary, 5.0F, static_cast<unsigned>(vocabulary));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    CHECK_CASE(greedy.next(logits, {}, 0) == best, std::to_string(vocabulary));
  }
  CHECK(greedy.next(Logits{1, 7, 7, 7}, {}, 0) == 1);
  CHECK(greedy.next(Logits{-kInfinity, -3, -kInfinity}, {}, 0) == 1);
  CHECK(greedy.next(Logits{-0.0F, 0.0F}, {}, 0) == 0);
}

void test_penalty() {
  Sampler sampler({0.0F, 0, 1.0F, 0.0F, 2.0F}, 0);
  const Logits logits{4, 3, 1};
  CHECK(sampler.next(logits, {}, 0) == 0);
  CHECK(sampler.next(logits, Ids{0}, 0) == 1);        // 2 3 1
  CHECK(sampler.next(logits, Ids{0, 1, 1}, 0) == 0);  // 2 1.5 1: once, however often it was seen
  CHECK(sampler.next(logits, Ids{0, 3, 9}, 0) == 1);  // those beyond the vocabulary do not count
  CHECK(sampler.next(Logits{-1, -1.5F}, Ids{0}, 0) == 1);
  CHECK(logits == (Logits{4, 3, 1}));
  CHECK_THROWS(sampler.next(logits, Ids{1, -1}, 0), "tokens seen must not be negative, got -1");
}

/// Penalties that overflow leave finite logits finite, and forbidden tokens forbidden.
void test_extreme_values() {
  constexpr float kTiny = std::numeric_limits<float>::min();
  constexpr float kHuge = std::numeric_limits<float>::max();
  CHECK(Sampler({0.0F, 0, 1.0F, 0.0F, kTiny}, 0).next(Logits{5, 9, 1}, Ids{0, 1}, 0) == 0);
  CHECK(Sampler({1.0F, 0, 1.0F, 0.0F, kTiny}, 0).next(Logits{1, 2, -kInfinity}, Ids{0, 2}, 0) == 0);
  CHECK(Sampler({1.0F, 0, 1.0F, 0.0F, kHuge}, 0).next(Logits{-5, -kInfinity}, Ids{0, 1}, 0) == 0);
  for (const float temperature : {kTiny, std::numeric_limits<float>::denorm_min()}) {
    CHECK(Sampler({temperature, 3, 0.9F, 0.1F, 1.0F}, 0).next(Logits{-kHuge, 2, kHuge, 1}, {}, 0) == 2);
  }
  check_frequencies(random_logits(10, 2.0F, 4), {}, {kHuge, 0, 1.0F, 0.0F, 1.0F});
}

/// Of equal tokens, top_k keeps all and top_p the lowest.
void test_ties() {
  const Logits logits{1, 2, 2, 0, 2};
  const auto drawn = [&](const SamplingOptions& options) {
    std::set<std::size_t> found;
    const std::vector<double> counts = counted(logits, {}, options, 1000);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] > 0) found.insert(i);
    }
    return found;
  };
  CHECK(drawn({1.0F, 2, 1.0F, 0.0F, 1.0F}) == (std::set<std::size_t>{1, 2, 4}));
  CHECK(drawn({1.0F, 0, 0.5F, 0.0F, 1.0F}) == (std::set<std::size_t>{1, 2}));
  CHECK(drawn({1.0F, 0, 0.0F, 0.0F, 1.0F}) == (std::set<std::size_t>{1}));
  CHECK(drawn({1.0F, 0, 1.0F, 1.0F, 1.0F}) == (std::set<std::size_t>{1, 2, 4}));
}

Ids drawn_tokens(Sampler& sampler, const Logits& logits, std::uint64_t steps) {
  Ids tokens;
  for (std::uint64_t step = 0; step < steps; ++step) tokens.push_back(sampler.next(logits, tokens, step));
  return tokens;
}

void test_seeds() {
  const SamplingOptions options{1.0F, 20, 0.95F, 0.01F, 1.1F};
  const Logits logits = random_logits(50, 2.0F, 5);
  Sampler first(options, 42);
  Sampler again(options, 42);
  Sampler other(options, 43);
  const Ids tokens = drawn_tokens(first, logits, 60);
  again.next(random_logits(99, 1.0F, 6), {}, 7);  // leaves nothing behind
  CHECK(drawn_tokens(again, logits, 60) == tokens);
  CHECK(drawn_tokens(other, logits, 60) != tokens);
  // Equal logits say what numbers were drawn: these are the same on every platform.
  Sampler plain({1.0F, 0, 1.0F, 0.0F, 1.0F}, 0);
  const Logits equal(1000, 0.0F);
  Ids numbers;
  for (std::uint64_t step = 0; step < 4; ++step) numbers.push_back(plain.next(equal, {}, step));
  CHECK(numbers == (Ids{652, 701, 387, 656}));  // SplitMix64
}

void test_log_probability() {
  for (const std::int64_t vocabulary : {1, 40, 262'144}) {
    const Logits logits = random_logits(vocabulary, 15.0F, 8);
    const std::vector<double> probabilities = softmax({logits.begin(), logits.end()});
    for (std::int32_t token = 0; token < vocabulary; token += 1 + token / 2) {
      const double found = log_probability(logits, token);
      CHECK_CASE(std::fabs(found - std::log(probabilities[static_cast<std::size_t>(token)])) <= 2e-6,
                 std::to_string(found));
    }
  }
  CHECK(log_probability(Logits{1, -kInfinity}, 1) == -INFINITY);
  CHECK(log_probability(Logits{1, -kInfinity}, 0) == 0);
  CHECK_THROWS(log_probability(Logits{1, 2}, 2), "token must be below 2, got 2");
  CHECK_THROWS(log_probability(Logits{1, 2}, -1), "token must be below 2, got -1");
  CHECK_THROWS_AS(std::runtime_error, log_probability(Logits{1, kNaN}, 0), "the model gives NaN");
}

void test_refused_logits() {
  for (const float temperature : {0.0F, 1.0F}) {
    Sampler sampler({temperature, 3, 0.9F, 0.1F, 1.2F}, 0);
    for (const std::size_t size : {std::size_t{1}, std::size_t{16}, std::size_t{35}}) {
      for (std::size_t place = 0; place < size; ++place) {
        Logits logits(size, 1.0F);
        logits[place] = kNaN;
        CHECK_THROWS_AS(std::runtime_error, sampler.next(logits, {}, 0),
                        "the model gives NaN as the logit of token " + std::to_string(place));
        logits[place] = kInfinity;
        CHECK_THROWS_AS(std::runtime_error, sampler.next(logits, {}, 0),
                        "the model gives infinity as the logit of token " + std::to_string(place));
      }
      CHECK_THROWS_AS(std::runtime_error, sampler.next(Logits(size, -kInfinity), {}, 0),
                      "the model gives minus infinity as the logit of every token");
    }
    CHECK_THROWS_AS(std::runtime_error, sampler.next(Logits{-kInfinity, kNaN}, {}, 0), "the model gives NaN");
    CHECK_THROWS(sampler.next({}, {}, 0), "logits must have at least one token");
  }
}

void test_refused_options() {
  const auto sampler = [](const SamplingOptions& options) { return Sampler(options, 0); };
  for (const float wrong : {-0.5F, kNaN, kInfinity}) {
    CHECK_THROWS(sampler({wrong, 0, 1.0F, 0.0F, 1.0F}), "temperature must be a finite number of at least 0, got");
    CHECK_THROWS(sampler({1.0F, 0, wrong, 0.0F, 1.0F}), "top_p must be from 0 to 1, got");
    CHECK_THROWS(sampler({1.0F, 0, 1.0F, wrong, 1.0F}), "min_p must be from 0 to 1, got");
    CHECK_THROWS(sampler({1.0F, 0, 1.0F, 0.0F, wrong}), "repetition_penalty must be a finite number above 0, got");
  }
  CHECK_THROWS(sampler({1.0F, 0, 1.1F, 0.0F, 1.0F}), "top_p must be from 0 to 1, got 1.1");
  CHECK_THROWS(sampler({1.0F, 0, 1.0F, 0.0F, 0.0F}), "repetition_penalty must be a finite number above 0, got 0.0");
  CHECK_THROWS(sampler({1.0F, -1, 1.0F, 0.0F, 1.0F}), "top_k must be at least 0, got -1");
}

}  // namespace

int main() {
  test_frequencies();
  test_large_vocabulary();
  test_greedy();
  test_penalty();
  test_extreme_values();
  test_ties();
  test_seeds();
  test_log_probability();
  test_refused_logits();
  test_refused_options();
  return check::result();
}
