// A case of attention with random operands, its call, and what it gives in double precision.
//
// A score is a product of head_dim terms, off by at most (head_dim + 4) eps times its magnitude; the scale of an int8
// key is one of four roundings more. The weights of a query are then off by twice the largest error of its scores,
// relatively, and by the 1.8e-7 of exp; sums of `keys` terms add their rounding. A soft cap has a slope of at most 1,
// and adds the 1e-6 of tanh.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "layer.h"
#include "operators/attention.h"
#include "operators/instruction_set.h"
#include "placed_floats.h"

/// Bytes or floats, a row for all queries of a text or one for each; `same_bytes`: a row for each, all alike.
enum class Mask { none, key_bytes, bytes, key_floats, floats, same_bytes };

struct AttentionCase {
  std::int64_t queries;
  std::int64_t keys;
  std::int64_t head_dim;
  std::int64_t value_dim;
  Mask mask = Mask::none;
  bool causal = false;
  std::int64_t heads = 2;
  std::int64_t key_heads = 2;
  std::int64_t batch = 2;
  std::int64_t window = 0;
  float soft_cap = 0.0F;

  bool of_bytes() const { return mask == Mask::key_bytes || mask == Mask::bytes || mask == Mask::same_bytes; }
  std::int64_t mask_rows() const { return mask == Mask::key_bytes || mask == Mask::key_floats ? 1 : queries; }
  std::int64_t mask_entries() const { return mask == Mask::none ? 0 : batch * mask_rows() * keys; }

  std::string name() const {
    return sparsekit::current_isa() + ", " + std::to_string(queries) + " queries, " + std::to_string(keys) + " keys, " +
           std::to_string(head_dim) + " and " + std::to_string(value_dim) + " features, mask " +
           std::to_string(static_cast<int>(mask)) + (causal ? ", causal" : "") + ", window " + std::to_string(window) +
           ", soft cap " + std::to_string(soft_cap);
  }
};

/// [batch, heads, tokens, features] that lies as [batch, tokens, heads, features], like the output of a linear layer.
template <class Number>
sparsekit::Heads<Number> token_major(Number* data, std::int64_t batch, std::int64_t heads, std::int64_t tokens,
                                     std::int64_t features) {
  return {data, {batch, heads, tokens, features}, {tokens * heads * features, features, heads * features, 1}};
}

class AttentionProblem {
 public:
  AttentionProblem(const AttentionCase& given, Place place)
      : case_(given),
        query_(count(given.batch * given.heads * given.queries * given.head_dim), place),
        key_(count(given.batch * given.key_heads * given.keys * given.head_dim), place),
        value_(count(given.batch * given.key_heads * given.keys * given.value_dim), place),
        output_(output_size(), place),
        floats_(count(given.mask_entries()), place),
        bytes_((count(given.mask_entries()) + 3) / 4, place) {
    fill(query_.data(), given.batch * given.heads * given.queries * given.head_dim, 1);
    fill(key_.data(), given.batch * given.key_heads * given.keys * given.head_dim, 2);
    fill(value_.data(), given.batch * given.key_heads * given.keys * given.value_dim, 3);
    fill_masks();
  }

  sparsekit::AttentionCall call() {
    const AttentionCase& c = case_;
    sparsekit::AttentionCall call{token_major<const float>(query_.data(), c.batch, c.heads, c.queries, c.head_dim),
                                  token_major<const float>(key_.data(), c.batch, c.key_heads, c.keys, c.head_dim),
                                  token_major<const float>(value_.data(), c.batch, c.key_heads, c.keys, c.value_dim),
                                  token_major<float>(output_.data(), c.batch, c.heads, c.queries, c.value_dim),
                                  {nullptr, {}, {}},
                                  c.of_bytes(),
                                  c.causal,
                                  scale()};
    if (c.mask == Mask::none) return call;
    call.mask = {c.of_bytes() ? static_cast<const void*>(bytes()) : floats_.data(),
                 {c.batch, c.heads, c.queries, c.keys},
                 {c.mask_rows() * c.keys, 0, c.mask_rows() == 1 ? 0 : c.keys, 1}};
    return call;
  }

  float scale() const { return 3.0F / std::sqrt(static_cast<float>(case_.head_dim)); }

  float* key() { return key_.data(); }
  float* value() { return value_.data(); }

  /// [batch, queries, heads, value_dim]
  std::vector<float> output() { return {output_.data(), output_.data() + output_size()}; }

  /// First output that is too far from the exact one, as text, or nothing.
  std::string wrong() {
    if (expected_.empty()) compute();
    for (std::size_t i = 0; i < output_size(); ++i) {
      if (std::fabs(double{output_.data()[i]} - expected_[i]) <= bound_[i]) continue;
      return "output " + std::to_string(i) + " is " + std::to_string(output_.data()[i]) + ", not " +
             std::to_string(expected_[i]);
    }
    return "";
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();
  static constexpr double kEps = std::numeric_limits<float>::epsilon();
  static constexpr double kExpError = 1.8e-7;
  static constexpr double kTanhError = 1e-6;

  static std::size_t count(std::int64_t number) { return static_cast<std::size_t>(number); }

  std::size_t output_size() const { return count(case_.batch * case_.queries * case_.heads * case_.value_dim); }

  /// They end where the memory ends.
  std::uint8_t* bytes() {
    const std::size_t entries = count(case_.mask_entries());
    return reinterpret_cast<std::uint8_t*>(bytes_.data() + (entries + 3) / 4) - entries;
  }

  static void fill(float* floats, std::int64_t number, unsigned seed) {
    const std::vector<float> random = random_floats(number, seed);
    std::copy(random.begin(), random.end(), floats);
  }

  /// A third is hidden; of the first text all but the middle where queries share a row, else every third query.
  void fill_masks() {
    const std::vector<float> random = random_floats(case_.mask_entries(), 4);
    const bool shared = case_.mask_rows() == 1 || case_.mask == Mask::same_bytes;
    for (std::int64_t i = 0; i < case_.mask_entries(); ++i) {
      const std::int64_t row = i / case_.keys;
      const std::int64_t key = i % case_.keys;
      const std::int64_t text = row / case_.mask_rows();
      const float number = random[count(shared ? text * case_.keys + key : i)];
      const bool padding = text == 0 && (key < case_.keys / 4 || key > case_.keys / 2);
      const bool hidden = number < -0.33F || (shared ? padding : row % 3 == 1);
      floats_.data()[i] = hidden ? -kInfinity : 5.0F * number;
      if (case_.of_bytes()) bytes()[i] = hidden ? 0 : static_cast<std::uint8_t>(1 + key % 255);
    }
  }

  double added(std::int64_t text, std::int64_t query, std::int64_t key) {
    const AttentionCase& c = case_;
    const std::int64_t position = query + c.keys - c.queries;
    if (c.causal && key > position) return -double{kInfinity};
    if (c.window > 0 && key <= position - c.window) return -double{kInfinity};
    if (c.mask == Mask::none) return 0.0;
    const std::int64_t at = (text * c.mask_rows() + (c.mask_rows() == 1 ? 0 : query)) * c.keys + key;
    if (!c.of_bytes()) return double{floats_.data()[at]};
    return bytes()[at] == 0 ? -double{kInfinity} : 0.0;
  }

  /// Weight of every key for one query, and their relative error.
  double weigh(std::int64_t text, std::int64_t head, std::int64_t query, std::vector<double>& weights) {
    const AttentionCase& c = case_;
    const float* q = query_.data() + ((text * c.queries + query) * c.heads + head) * c.head_dim;
    double largest = -double{kInfinity};
    double error = 0;
    for (std::int64_t k = 0; k < c.keys; ++k) {
      const float* key =
          key_.data() + ((text * c.keys + k) * c.key_heads + head / (c.heads / c.key_heads)) * c.head_dim;
      double magnitude = 0;
      double score = 0;
      for (std::int64_t d = 0; d < c.head_dim; ++d) {
        const double product = double{scale()} * double{q[d]} * double{key[d]};
        score += product;
        magnitude += std::fabs(product);
      }
      double capped_error = 0;
      if (c.soft_cap > 0.0F) {
        score = double{c.soft_cap} * std::tanh(score / double{c.soft_cap});
        capped_error = (kTanhError + 2 * kEps) * std::fabs(score) + kEps * magnitude;
      }
      const double shift = added(text, query, k);
      weights[count(k)] = score + shift;
      largest = std::max(largest, score + shift);
      if (std::isinf(shift)) continue;
      error =
          std::max(error, static_cast<double>(c.head_dim + 4) * kEps * (magnitude + std::fabs(shift)) + capped_error);
    }
    double total = 0;
    for (double& weight : weights) total += weight = std::isinf(largest) ? 0.0 : std::exp(weight - largest);
    for (double& weight : weights) weight = total == 0 ? 0.0 : weight / total;
    return 2 * error + 2 * kExpError + static_cast<double>(c.keys + 9) * kEps;
  }

  void compute() {
    const AttentionCase& c = case_;
    expected_.assign(output_size(), 0.0);
    bound_ = expected_;
    std::vector<double> weights(count(c.keys));
    for (std::size_t i = 0; i < count(c.batch * c.queries * c.heads); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const std::int64_t text = row / (c.queries * c.heads);
      const std::int64_t head = row % c.heads;
      const double error = weigh(text, head, row / c.heads % c.queries, weights);
      for (std::int64_t k = 0; k < c.keys; ++k) {
        const float* value =
            value_.data() + ((text * c.keys + k) * c.key_heads + head / (c.heads / c.key_heads)) * c.value_dim;
        for (std::size_t d = 0; d < count(c.value_dim); ++d) {
          const double product = weights[count(k)] * double{value[d]};
          expected_[i * count(c.value_dim) + d] += product;
          bound_[i * count(c.value_dim) + d] += error * std::fabs(product);
        }
      }
    }
  }

  AttentionCase case_;
  PlacedFloats query_;
  PlacedFloats key_;
  PlacedFloats value_;
  PlacedFloats output_;
  PlacedFloats floats_;
  PlacedFloats bytes_;
  std::vector<double> expected_;  // like `output`
  std::vector<double> bound_;
};
