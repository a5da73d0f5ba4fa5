#include "sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void check_range(bool inside, const char* name, const char* expected, float value) {
  if (inside) return;
  throw std::invalid_argument(std::string(name) + " must be " + expected + ", got " + std::to_string(value));
}

/// Why logits have no most probable token.
[[noreturn]] void refuse(std::span<const float> logits) {
  if (logits.empty()) throw std::invalid_argument("logits must have at least one token, got none");
  const auto found = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x <= kLargest); });
  if (found == logits.end()) throw std::runtime_error("the model gives minus infinity as the logit of every token");
  throw std::runtime_error(std::string("the model gives ") + (std::isnan(*found) ? "NaN" : "infinity") +
                           " as the logit of token " + std::to_string(found - logits.begin()) +
                           "; are its weights damaged?");
}

/// The largest logit. Lanes of their own, so that no comparison waits for the one before it.
float peak_of(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> peaks;
  std::array<std::uint32_t, kLanes> beyond{};  // NaN or infinity
  peaks.fill(-kInfinity);
  const auto compare = [&](std::size_t lane, float x) {
    peaks[lane] = x > peaks[lane] ? x : peaks[lane];
    beyond[lane] |= static_cast<std::uint32_t>(!(x <= kLargest));
  };
  const std::size_t whole = logits.size() - logits.size() % kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) compare(lane, logits[i + lane]);
  }
  for (std::size_t i = whole; i < logits.size(); ++i) compare(i - whole, logits[i]);
  const float peak = *std::max_element(peaks.begin(), peaks.end());
  if (peak == -kInfinity || std::any_of(beyond.begin(), beyond.end(), [](auto any) { return any != 0; })) {
    refuse(logits);
  }
  return peak;
}

/// SplitMix64's mixing of bits: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
std::uint64_t mixed(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  return bits ^ (bits >> 31);
}

/// From 0 to below 1, the same on every platform. The seed is mixed first: streams of SplitMix64 whose seeds differ by
/// a multiple of its increment overlap.
double random_number(std::uint64_t seed, std::uint64_t step) {
  constexpr std::uint64_t kIncrement = 0x9E3779B97F4A7C15;
  const std::uint64_t bits = mixed(mixed(seed + kIncrement) + (step + 1) * kIncrement);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

/// Stays finite where the logit is.
float penalize(float logit, float penalty) {
  if (logit == -kInfinity) return logit;
  return std::clamp(logit < 0 ? logit * penalty : logit / penalty, -kLargest, kLargest);
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  const auto [temperature, top_k, top_p, min_p, penalty] = options;
  check_range(temperature >= 0 && temperature <= kLargest, "temperature", "a finite number of at least 0", temperature);
  if (top_k < 0) throw std::invalid_argument("top_k must be at least 0, got " + std::to_string(top_k));
  check_range(top_p >= 0 && top_p <= 1, "top_p", "from 0 to 1", top_p);
  check_range(min_p >= 0 && min_p <= 1, "min_p", "from 0 to 1", min_p);
  check_range(penalty > 0 && penalty <= kLargest, "repetition_penalty", "a finite number above 0", penalty);
}

Sampler::Sampler(const SamplingOptions& options, std::uint64_t seed) : options_(options), seed_(seed) {
  check_sampling(options);
}

/// The most probable one comes last, of equal ones the lowest token, as std::pop_heap takes them.
bool Sampler::Candidate::operator<(const Candidate& other) const {
  return weight != other.weight ? weight < other.weight : token > other.token;
}

std::int32_t Sampler::next(std::span<const float> logits, std::span<const std::int32_t> seen, std::uint64_t step) {
  float peak = peak_of(logits);
  if (options_.repetition_penalty != 1.0F) {
    logits = penalized(logits, seen);
    peak = peak_of(logits);
  }
  if (options_.temperature == 0.0F) {
    return static_cast<std::int32_t>(std::find(logits.begin(), logits.end(), peak) - logits.begin());
  }
  collect(logits, peak);
  if (options_.top_p < 1.0F) keep_top_p();
  if (options_.min_p > 0.0F) keep_min_p();
  return draw(step);
}

/// Reads what the model gave, so that a token that is seen twice is penalized once.
std::span<const float> Sampler::penalized(std::span<const float> logits, std::span<const std::int32_t> seen) {
  penalized_.assign(logits.begin(), logits.end());
  for (const std::int32_t token : seen) {
    if (token < 0) throw std::invalid_argument("tokens seen must not be negative, got " + std::to_string(token));
    const auto place = static_cast<std::size_t>(token);
    if (place < logits.size()) penalized_[place] = penalize(logits[place], options_.repetition_penalty);
  }
  return penalized_;
}

/// The k-th largest logit: one pass over a heap of k.
float Sampler::top_k_threshold(std::span<const float> logits) {
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k == 0 || k >= logits.size()) return -kInfinity;
  largest_.resize(k);
  std::partial_sort_copy(logits.begin(), logits.end(), largest_.begin(), largest_.end(), std::greater<>());
  return largest_.back();
}

/// Tokens among the top k, in their order; a token whose weight is 0 is never drawn.
void Sampler::collect(std::span<const float> logits, float peak) {
  const float threshold = top_k_threshold(logits);
  candidates_.clear();
  for (std::size_t token = 0; token < logits.size(); ++token) {
    if (logits[token] < threshold) continue;
    const float weight = std::exp((logits[token] - peak) / options_.temperature);
    if (weight > 0.0F) candidates_.push_back({weight, static_cast<std::int32_t>(token)});
  }
}

double Sampler::total() const {
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  return sum;
}

/// Takes the most probable tokens off a heap until they have their part. n tokens of less than (1 - top_p) / n each
/// have less than 1 - top_p together, which is left out: they need not be in the heap.
void Sampler::keep_top_p() {
  const double top_p = options_.top_p;
  const double all = total();
  const double least = (1 - top_p) * all / static_cast<double>(candidates_.size());
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.weight < least; });
  auto rest = candidates_.end();
  double kept = 0;
  std::make_heap(candidates_.begin(), rest);
  do {
    std::pop_heap(candidates_.begin(), rest);
    kept += (--rest)->weight;
  } while (rest != candidates_.begin() && kept < top_p * all);
  candidates_.erase(candidates_.begin(), rest);
}

void Sampler::keep_min_p() {
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.weight < options_.min_p; });
}

std::int32_t Sampler::draw(std::uint64_t step) const {
  double left = random_number(seed_, step) * total();
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  return candidates_.back().token;  // rounding
}

double log_probability(std::span<const float> logits, std::int32_t token) {
  if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) {
    throw std::invalid_argument("token must be below " + std::to_string(logits.size()) + ", got " +
                                std::to_string(token));
  }
  const float peak = peak_of(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - peak);
  return double{logits[static_cast<std::size_t>(token)]} - peak - std::log(sum);
}

}  // namespace sparsekit
