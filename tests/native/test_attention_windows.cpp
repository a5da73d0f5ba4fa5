// sequence_attention() with biases by distance and with windows, on every instruction set, with one thread and with
// several, against double precision. The bound is that of attention_case.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "layer.h"
#include "operators/instruction_set.h"
#include "operators/sequence_attention.h"
#include "placed_floats.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kHeads = 2;
constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr double kExpError = 1.8e-7;

struct Case {
  std::int64_t head_dim;
  std::vector<std::int64_t> offsets;
  std::int64_t window;
  std::int64_t bias_tokens;  // 0 without biases

  std::int64_t tokens() const { return offsets.back(); }
  std::int64_t bias_row() const { return bias_tokens == 0 ? 0 : 2 * bias_tokens - 1; }
  std::string name() const {
    return current_isa() + ", " + std::to_string(head_dim) + " features, " + std::to_string(offsets[1]) +
           " tokens first, window " + std::to_string(window) + ", biases of " + std::to_string(bias_tokens);
  }
};

/// Operands end where the memory ends.
class Problem {
 public:
  explicit Problem(const Case& given)
      : case_(given),
        query_(size(), Place::page_end),
        key_(size(), Place::page_end),
        value_(size(), Place::page_end),
        output_(size(), Place::page_end),
        biases_(static_cast<std::size_t>(kHeads * given.bias_row()), Place::page_end) {
    fill(query_, 1, 1.0F);
    fill(key_, 2, 1.0F);
    fill(value_, 3, 1.0F);
    fill(biases_, 4, 4.0F);
    compute();
  }

  std::vector<float> output() { return {output_.data(), output_.data() + size()}; }

  std::string wrong() {
    const auto count = static_cast<std::int64_t>(case_.offsets.size()) - 1;
    std::fill_n(output_.data(), size(), 7.0F);
    sequence_attention({query_.data(),
                        key_.data(),
                        value_.data(),
                        output_.data(),
                        kHeads,
                        case_.head_dim,
                        case_.head_dim,
                        {case_.offsets.data(), count},
                        kScale,
                        {case_.bias_tokens == 0 ? nullptr : biases_.data(), kHeads, case_.bias_tokens},
                        case_.window});
    for (std::size_t i = 0; i < size(); ++i) {
      if (std::fabs(double{output_.data()[i]} - expected_[i]) <= bound_[i]) continue;
      return "output " + std::to_string(i) + " is " + std::to_string(output_.data()[i]) + ", not " +
             std::to_string(expected_[i]);
    }
    return "";
  }

 private:
  static constexpr float kScale = 0.7F;

  std::size_t size() const { return static_cast<std::size_t>(case_.tokens() * kHeads * case_.head_dim); }

  void fill(PlacedFloats& floats, unsigned seed, float scale) const {
    const std::int64_t count = seed == 4 ? kHeads * case_.bias_row() : static_cast<std::int64_t>(size());
    const std::vector<float> random = random_floats(count, seed);
    std::transform(random.begin(), random.end(), floats.data(), [&](float x) { return scale * x; });
  }

  const float* row(PlacedFloats& rows, std::int64_t token, std::int64_t head) {
    return rows.data() + (token * kHeads + head) * case_.head_dim;
  }

  void compute() {
    expected_.assign(size(), 0.0);
    bound_ = expected_;
    for (std::size_t s = 0; s + 1 < case_.offsets.size(); ++s) {
      for (std::int64_t t = case_.offsets[s]; t < case_.offsets[s + 1]; ++t) {
        for (std::int64_t h = 0; h < kHeads; ++h) compute_query(case_.offsets[s], case_.offsets[s + 1], t, h);
      }
    }
  }

  /// Query `token` of the sequence `[first, last)`.
  void compute_query(std::int64_t first, std::int64_t last, std::int64_t token, std::int64_t head) {
    if (case_.window > 0) {
      first = std::max(first, token - case_.window);
      last = std::min(last, token + case_.window + 1);
    }
    std::vector<double> weights;
    double error = 0.0;
    for (std::int64_t k = first; k < last; ++k) {
      const double bias = case_.bias_tokens == 0
                              ? 0.0
                              : double{biases_.data()[head * case_.bias_row() + token - k + case_.bias_tokens - 1]};
      double score = bias;
      double magnitude = std::fabs(bias);
      for (std::int64_t f = 0; f < case_.head_dim; ++f) {
        const double product = double{kScale} * double{row(query_, token, head)[f]} * double{row(key_, k, head)[f]};
        score += product;
        magnitude += std::fabs(product);
      }
      weights.push_back(score);
      error = std::max(error, static_cast<double>(case_.head_dim + 3) * kEps * magnitude);
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0.0;
    for (double& weight : weights) total += weight = std::exp(weight - largest);
    const double relative = 2 * error + 2 * kExpError + static_cast<double>(last - first + 8) * kEps;
    for (std::int64_t k = first; k < last; ++k) {
      for (std::int64_t f = 0; f < case_.head_dim; ++f) {
        const double part = weights[static_cast<std::size_t>(k - first)] / total * double{row(value_, k, head)[f]};
        const auto at = static_cast<std::size_t>((token * kHeads + head) * case_.head_dim + f);
        expected_[at] += part;
        bound_[at] += relative * std::fabs(part);
      }
    }
  }

  Case case_;
  PlacedFloats query_;
  PlacedFloats key_;
  PlacedFloats value_;
  PlacedFloats output_;
  PlacedFloats biases_;
  std::vector<double> expected_;
  std::vector<double> bound_;
};

void check_case(const Case& given) {
  Problem problem(given);
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    std::vector<float> alone;
    for (const int threads : {1, 3}) {
      set_pool_threads(threads);
      const std::string wrong = problem.wrong();
      CHECK_CASE(wrong.empty(), given.name() + ": " + wrong);
      if (threads == 1) alone = problem.output();
      CHECK_CASE(same_bits(problem.output(), alone), given.name() + ", " + std::to_string(threads) + " threads");
    }
  }
}

}  // namespace

int main() {
  int at = 0;
  const std::vector<std::vector<std::int64_t>> batches = {
      {0, 1, 1, 3, 10, 30, 63}, {0, 5}, {0, 16, 33, 65}, {0, 150, 152}};
  for (const auto& offsets : batches) {
    std::int64_t longest = 0;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) longest = std::max(longest, offsets[i + 1] - offsets[i]);
    for (const std::int64_t window : {0, 1, 2, 7, 16, 64, 128, 500}) {
      for (const std::int64_t tokens : {std::int64_t{0}, longest, longest + 9}) {
        check_case({++at % 2 == 0 ? 8 : 33, offsets, window, tokens});
      }
    }
  }
  return check::result();
}
