// add_layer_norm() with every instruction set against double precision: awkward sizes, operands right before a page
// that cannot be accessed, large means, infinities and NaN, threads, and calls that must be refused.
//
// A sum is off by eps of its size, the mean of n of them by at most (n + 2) eps of their mean size; what a number
// differs from the mean by is off by both, and the variance relatively by twice that over the standard deviation. A
// mean square is off by at most (n + 6) eps of itself.
#include <cmath>

#include "check.h"
#include "layer.h"
#include "operators/instruction_set.h"
#include "operators/layer_norm.h"
#include "placed_floats.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr float kVarianceEps = 1e-5F;

class NormProblem {
 public:
  NormProblem(std::int64_t count, std::int64_t features, Place place, bool affine, float shift = 0.0F,
              bool centered = true)
      : count_(count),
        features_(features),
        affine_(affine),
        centered_(centered),
        input_(size(), place),
        added_(size(), place),
        output_(size(), place),
        weight_(static_cast<std::size_t>(features), place),
        bias_(static_cast<std::size_t>(features), place) {
    fill(input_.data(), count * features, 1, shift);
    fill(added_.data(), count * features, 2, 0.0F);
    fill(weight_.data(), features, 3, 0.0F);
    fill(bias_.data(), features, 4, 0.0F);
  }

  LayerNormRows rows() {
    return {input_.data(),
            added_.data(),
            output_.data(),
            count_,
            features_,
            affine_ ? weight_.data() : nullptr,
            affine_ ? bias_.data() : nullptr,
            kVarianceEps,
            nullptr,
            centered_};
  }

  float* input() { return input_.data(); }
  std::vector<float> output() { return {output_.data(), output_.data() + size()}; }

  /// First number that is too far from the exact one, as text, or nothing.
  std::string wrong() {
    for (std::int64_t row = 0; row < count_; ++row) {
      const std::string found = centered_ ? wrong_in(row * features_) : wrong_square(row * features_);
      if (!found.empty()) return found;
    }
    return "";
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(count_ * features_); }

  static void fill(float* floats, std::int64_t number, unsigned seed, float shift) {
    const std::vector<float> random = random_floats(number, seed);
    for (std::size_t i = 0; i < random.size(); ++i) floats[i] = random[i] + shift;
  }

  double sum_at(std::int64_t i) { return double{input_.data()[i]} + double{added_.data()[i]}; }

  /// Of a row that starts at `start`, of RMSNorm.
  std::string wrong_square(std::int64_t start) {
    const auto n = static_cast<double>(features_);
    double square = 0;
    for (std::int64_t f = 0; f < features_; ++f) square += sum_at(start + f) * sum_at(start + f) / n;
    const double root = std::sqrt(square + double{kVarianceEps});
    for (std::int64_t f = 0; f < features_; ++f) {
      const double scaled = sum_at(start + f) / root * (affine_ ? double{weight_.data()[f]} : 1.0);
      const double exact = scaled + (affine_ ? double{bias_.data()[f]} : 0.0);
      const double bound = std::fabs(scaled) * (0.5 * (n + 6) + 6) * kEps + kEps * std::fabs(exact) + 1e-37;
      const double found = double{output_.data()[start + f]};
      if (std::fabs(found - exact) <= bound) continue;
      return "number " + std::to_string(start + f) + " is " + std::to_string(found) + ", not " + std::to_string(exact);
    }
    return "";
  }

  std::string wrong_in(std::int64_t start) {
    const auto n = static_cast<double>(features_);
    const auto sum = [&](std::int64_t f) { return sum_at(start + f); };
    double mean = 0;
    double size = 0;
    for (std::int64_t f = 0; f < features_; ++f) mean += sum(f) / n;
    for (std::int64_t f = 0; f < features_; ++f) size += std::fabs(sum(f)) / n;
    double variance = 0;
    for (std::int64_t f = 0; f < features_; ++f) variance += (sum(f) - mean) * (sum(f) - mean) / n;
    const double deviation = std::sqrt(variance + double{kVarianceEps});
    for (std::int64_t f = 0; f < features_; ++f) {
      const double weight = affine_ ? double{weight_.data()[f]} : 1.0;
      const double bias = affine_ ? double{bias_.data()[f]} : 0.0;
      const double normal = (sum(f) - mean) / deviation;
      const double apart = kEps * (std::fabs(sum(f)) + (n + 2) * size) / deviation;
      const double bound = std::fabs(weight) * (apart + std::fabs(normal) * (2 * apart + (n + 8) * kEps)) +
                           2 * kEps * (std::fabs(weight * normal) + std::fabs(bias)) + 1e-37;
      const double found = double{output_.data()[start + f]};
      if (std::fabs(found - (normal * weight + bias)) <= bound) continue;
      return "number " + std::to_string(start + f) + " is " + std::to_string(found) + ", not " +
             std::to_string(normal * weight + bias);
    }
    return "";
  }

  std::int64_t count_;
  std::int64_t features_;
  bool affine_;
  bool centered_;
  PlacedFloats input_;
  PlacedFloats added_;
  PlacedFloats output_;
  PlacedFloats weight_;
  PlacedFloats bias_;
};

void check_case(std::int64_t count, std::int64_t features, Place place, bool affine, float shift = 0.0F,
                bool centered = true) {
  NormProblem problem(count, features, place, affine, shift, centered);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    add_layer_norm(problem.rows());
    const std::string wrong = problem.wrong();
    CHECK_CASE(wrong.empty(), isa + ", " + std::to_string(count) + " x " + std::to_string(features) + ": " + wrong);
  }
}

void sizes() {
  int at = 0;
  for (const std::int64_t count : {1, 2, 3, 4, 5, 9}) {
    for (const std::int64_t features : {1, 2, 7, 8, 15, 16, 17, 31, 63, 64, 65, 130, 384, 1000}) {
      ++at;
      for (const bool centered : {true, false}) {
        check_case(count, features, static_cast<Place>(at % 3), at % 2 == 0, 0.0F, centered);
      }
    }
  }
  check_case(0, 8, Place::heap, true);
  check_case(8, 0, Place::heap, true);
}

/// A mean that is far larger than what the numbers differ by.
void large_means() {
  for (const float shift : {100.0F, -10000.0F}) {
    for (const bool centered : {true, false}) check_case(3, 200, Place::shifted, true, shift, centered);
  }
}

/// A row that holds an infinity or NaN is NaN, as torch's; its neighbors are not.
void poison_stays_in_its_row() {
  for (const float poison : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN()}) {
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      NormProblem problem(5, 37, Place::page_end, true);
      problem.input()[2 * 37 + 36] = poison;
      add_layer_norm(problem.rows());
      const std::vector<float> found = problem.output();
      for (std::size_t i = 0; i < found.size(); ++i) CHECK_CASE(std::isnan(found[i]) == (i / 37 == 2), isa);
      LayerNormRows rows = problem.rows();
      rows.centered = false;  // an infinite mean square leaves 0 of finite numbers
      add_layer_norm(rows);
      const std::vector<float> scaled = problem.output();
      for (std::size_t i = 0; i < scaled.size(); ++i) {
        const bool none = i / 37 == 2 && (std::isnan(poison) || i % 37 == 36);
        CHECK_CASE(std::isnan(scaled[i]) == none, isa);
      }
    }
  }
}

/// Rows have the same bits whoever computes them, and wherever they stand.
void thread_counts_agree(bool centered) {
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    set_pool_threads(1);
    NormProblem problem(451, 390, Place::heap, true, 0.0F, centered);
    add_layer_norm(problem.rows());
    const std::vector<float> expected = problem.output();
    for (const int threads : {2, 3, 4}) {
      set_pool_threads(threads);
      NormProblem again(451, 390, Place::heap, true, 0.0F, centered);
      add_layer_norm(again.rows());
      CHECK_CASE(same_bits(again.output(), expected), isa + ", " + std::to_string(threads) + " threads");
    }
  }
  set_pool_threads(1);
}

/// Sums that are kept are those of the operands, also in the place of one; alone they have the same norm.
void keeps_sums_and_takes_one_activation(bool centered) {
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    for (const std::int64_t features : {1, 37, 64, 390}) {
      NormProblem problem(301, features, Place::page_end, true, 0.0F, centered);
      LayerNormRows rows = problem.rows();
      const std::vector<float> before(rows.input, rows.input + 301 * features);
      add_layer_norm(rows);
      const std::vector<float> expected = problem.output();
      for (const int threads : {1, 3}) {
        set_pool_threads(threads);
        std::copy(before.begin(), before.end(), problem.input());
        rows.sums = problem.input();
        rows.added = problem.rows().added;
        add_layer_norm(rows);
        CHECK_CASE(same_bits(problem.output(), expected), isa);
        for (std::size_t i = 0; i < before.size(); ++i) CHECK_CASE(rows.sums[i] == before[i] + rows.added[i], isa);
        rows.sums = nullptr;
        rows.added = nullptr;
        add_layer_norm(rows);
        CHECK_CASE(same_bits(problem.output(), expected), isa);
      }
      set_pool_threads(1);
    }
  }
}

void refuses_calls() {
  NormProblem problem(1, 1, Place::heap, true);
  LayerNormRows rows = problem.rows();
  rows.count = -1;
  CHECK_THROWS(add_layer_norm(rows), "must not be negative, got -1 and 1");
}

}  // namespace

int main() {
  set_pool_threads(1);
  sizes();
  large_means();
  poison_stays_in_its_row();
  for (const bool centered : {true, false}) {
    thread_counts_agree(centered);
    keeps_sums_and_takes_one_activation(centered);
  }
  refuses_calls();
  return check::result();
}
