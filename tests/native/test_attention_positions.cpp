// sequence_attention() with tables of distances (disentangled attention), on every instruction set, with one thread and
// with several, against double precision. The bound is that of attention_case.h, of products of three times as many
// terms.
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
constexpr float kScale = 0.3F;
constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr double kExpError = 1.8e-7;

/// How distances share rows.
enum class Rows { own, far_ones_shared, skipped, descending, one };

struct Case {
  std::int64_t head_dim;
  std::vector<std::int64_t> offsets;
  Rows rows;
  bool keys;
  bool queries;
  std::int64_t window = 0;

  std::int64_t tokens() const { return offsets.back(); }
  std::int64_t longest() const {
    std::int64_t most = 1;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) most = std::max(most, offsets[i + 1] - offsets[i]);
    return most;
  }
  std::string name() const {
    return current_isa() + ", " + std::to_string(head_dim) + " features, " + std::to_string(offsets[1]) +
           " tokens first, rows " + std::to_string(static_cast<int>(rows)) + (keys ? ", keys" : "") +
           (queries ? ", queries" : "") + ", window " + std::to_string(window);
  }
};

/// The row of every distance between `tokens` tokens; the first row is 0.
std::vector<std::int32_t> rows_of(Rows rows, std::int64_t tokens) {
  std::vector<std::int32_t> all;
  for (std::int64_t d = 1 - tokens; d < tokens; ++d) {
    const std::int64_t near = std::clamp<std::int64_t>(d, -20, 20);
    const std::int64_t row = rows == Rows::own               ? d
                             : rows == Rows::far_ones_shared ? near + (d - near) / 5
                             : rows == Rows::skipped         ? d < 3 ? 2 * d : d + 7
                             : rows == Rows::descending      ? -d
                                                             : 0;
    all.push_back(static_cast<std::int32_t>(row));
  }
  const std::int32_t least = *std::ranges::min_element(all);
  for (std::int32_t& row : all) row -= least;
  return all;
}

/// Operands end where the memory ends.
class Problem {
 public:
  explicit Problem(const Case& given)
      : case_(given),
        rows_(rows_of(given.rows, given.longest())),
        query_(size(), Place::page_end),
        key_(size(), Place::page_end),
        value_(size(), Place::page_end),
        output_(size(), Place::page_end),
        position_key_(table_size(), Place::page_end),
        position_query_(table_size(), Place::page_end) {
    unsigned seed = 1;
    for (PlacedFloats* floats : {&query_, &key_, &value_, &position_key_, &position_query_}) {
      const std::vector<float> random =
          random_floats(static_cast<std::int64_t>(seed > 3 ? table_size() : size()), seed);
      std::copy(random.begin(), random.end(), floats->data());
      ++seed;
    }
    compute();
  }

  std::string wrong() {
    std::fill_n(output_.data(), size(), 7.0F);
    sequence_attention(
        {.query = query_.data(),
         .key = key_.data(),
         .value = value_.data(),
         .output = output_.data(),
         .heads = kHeads,
         .head_dim = case_.head_dim,
         .value_dim = case_.head_dim,
         .sequences = {case_.offsets.data(), static_cast<std::int64_t>(case_.offsets.size()) - 1},
         .scale = kScale,
         .window = case_.window,
         .positions = {case_.keys ? position_key_.data() : nullptr, case_.queries ? position_query_.data() : nullptr,
                       rows_.data(), case_.longest()}});
    for (std::size_t i = 0; i < size(); ++i) {
      if (std::fabs(double{output_.data()[i]} - expected_[i]) <= bound_[i]) continue;
      return "output " + std::to_string(i) + " is " + std::to_string(output_.data()[i]) + ", not " +
             std::to_string(expected_[i]);
    }
    return "";
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(case_.tokens() * kHeads * case_.head_dim); }

  /// No more rows than distances have.
  std::size_t table_size() const {
    return static_cast<std::size_t>((*std::ranges::max_element(rows_) + 1) * kHeads * case_.head_dim);
  }

  const float* row(PlacedFloats& rows, std::int64_t index, std::int64_t head) {
    return rows.data() + (index * kHeads + head) * case_.head_dim;
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

  /// The score of a token for another, and the sum of its terms' magnitudes.
  std::pair<double, double> score(std::int64_t token, std::int64_t other, std::int64_t head) {
    const std::int64_t at = rows_[static_cast<std::size_t>(token - other + case_.longest() - 1)];
    double sum = 0.0;
    double magnitude = 0.0;
    const auto add = [&](const float* one, const float* two, bool added) {
      for (std::int64_t f = 0; added && f < case_.head_dim; ++f) {
        const double product = double{kScale} * double{one[f]} * double{two[f]};
        sum += product;
        magnitude += std::fabs(product);
      }
    };
    add(row(query_, token, head), row(key_, other, head), true);
    add(row(query_, token, head), row(position_key_, at, head), case_.keys);
    add(row(key_, other, head), row(position_query_, at, head), case_.queries);
    return {sum, magnitude};
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
      const auto [sum, magnitude] = score(token, k, head);
      weights.push_back(sum);
      error = std::max(error, static_cast<double>(3 * case_.head_dim + 3) * kEps * magnitude);
    }
    const double largest = *std::ranges::max_element(weights);
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
  std::vector<std::int32_t> rows_;
  PlacedFloats query_;
  PlacedFloats key_;
  PlacedFloats value_;
  PlacedFloats output_;
  PlacedFloats position_key_;
  PlacedFloats position_query_;
  std::vector<double> expected_;
  std::vector<double> bound_;
};

void check_case(const Case& given) {
  Problem problem(given);
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const int threads : {1, 3}) {
      set_pool_threads(threads);
      const std::string wrong = problem.wrong();
      CHECK_CASE(wrong.empty(), given.name() + ": " + wrong);
    }
  }
}

}  // namespace

int main() {
  int at = 0;
  for (const Rows rows : {Rows::own, Rows::far_ones_shared, Rows::skipped, Rows::descending, Rows::one}) {
    const bool one = ++at % 2 == 0;
    check_case({33, {0, 1, 1, 3, 10, 30, 63}, rows, true, true});
    check_case({8, {0, 5}, rows, one, !one});
    check_case({8, {0, 16, 33, 65}, rows, !one, one, 7});
    check_case({8, {0, 150, 152}, rows, true, true, at % 3 == 0 ? 40 : 0});
  }
  check_case({5, {0, 290}, Rows::far_ones_shared, true, true});
  return check::result();
}
