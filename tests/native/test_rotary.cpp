// rotate() against double precision: sequences that begin and that continue a cache, heads wider than the table,
// threads, and calls that must be refused. Two products of numbers up to 1 and their sum are off by at most 2 eps.
#include <cmath>

#include "check.h"
#include "layer.h"
#include "operators/rotary.h"
#include "placed_floats.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();
constexpr std::int64_t kPositions = 700;

struct Case {
  std::int64_t heads;
  std::int64_t head_dim;
  std::int64_t table_dim;
  std::vector<std::int64_t> offsets;
  std::vector<std::int64_t> first_positions;  // none: all 0

  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t tokens() const { return offsets.back() - offsets.front(); }
  std::string name() const {
    return std::to_string(heads) + " heads of " + std::to_string(head_dim) + " features, " + std::to_string(table_dim) +
           " turned, " + std::to_string(tokens()) + " tokens";
  }
};

class RotaryProblem {
 public:
  explicit RotaryProblem(const Case& given)
      : case_(given),
        table_(random_floats(kPositions * given.table_dim, 1)),
        before_(random_floats(given.tokens() * given.heads * given.head_dim, 2)),
        input_(before_.size(), Place::page_end) {
    restore();
  }

  RotaryTable table() const { return {table_.data(), kPositions, case_.table_dim}; }

  RotaryCall call() {
    return {case_.heads,
            case_.head_dim,
            {case_.offsets.data(), case_.count()},
            case_.first_positions.empty() ? nullptr : case_.first_positions.data(),
            input_.data()};
  }

  void restore() { std::copy(before_.begin(), before_.end(), input_.data()); }

  std::vector<float> output() { return {input_.data(), input_.data() + before_.size()}; }

  /// First number that is too far from the exact one, as text, or nothing.
  std::string wrong() {
    for (std::int64_t s = 0; s < case_.count(); ++s) {
      const auto at = static_cast<std::size_t>(s);
      const std::int64_t position = case_.first_positions.empty() ? 0 : case_.first_positions[at];
      for (std::int64_t t = case_.offsets[at]; t < case_.offsets[at + 1]; ++t) {
        const std::string found = wrong_token(t - case_.offsets[0], position + t - case_.offsets[at]);
        if (!found.empty()) return found;
      }
    }
    return "";
  }

 private:
  std::string wrong_token(std::int64_t token, std::int64_t position) {
    const std::int64_t start = token * case_.heads * case_.head_dim;
    for (std::int64_t i = 0; i < case_.heads * case_.head_dim; ++i) {
      const double exact = turned(start + i / case_.head_dim * case_.head_dim, i % case_.head_dim, position);
      const double found = double{input_.data()[start + i]};
      if (std::fabs(found - exact) <= (i % case_.head_dim < case_.table_dim ? 2 * kEps : 0.0)) continue;
      return "number " + std::to_string(i) + " of token " + std::to_string(token) + " is " + std::to_string(found) +
             ", not " + std::to_string(exact);
    }
    return "";
  }

  /// Feature `f` of the head that starts at `head`.
  double turned(std::int64_t head, std::int64_t f, std::int64_t position) const {
    const auto number = [](const std::vector<float>& floats, std::int64_t i) {
      return double{floats[static_cast<std::size_t>(i)]};
    };
    const std::int64_t half = case_.table_dim / 2;
    if (f >= case_.table_dim) return number(before_, head + f);
    const std::int64_t row = position * case_.table_dim + f % half;
    const double other = number(before_, head + (f < half ? f + half : f - half));
    return number(before_, head + f) * number(table_, row) + (f < half ? -other : other) * number(table_, row + half);
  }

  Case case_;
  std::vector<float> table_;
  std::vector<float> before_;
  PlacedFloats input_;
};

/// The same bits with every number of threads.
void check_case(const Case& given) {
  RotaryProblem problem(given);
  set_pool_threads(1);
  rotate(problem.table(), problem.call());
  CHECK_CASE(problem.wrong().empty(), given.name() + ": " + problem.wrong());
  const std::vector<float> alone = problem.output();
  for (const int threads : {2, 3}) {
    set_pool_threads(threads);
    problem.restore();
    rotate(problem.table(), problem.call());
    CHECK_CASE(same_bits(problem.output(), alone), given.name() + ", " + std::to_string(threads) + " threads");
  }
  set_pool_threads(1);
}

void sequences() {
  for (const auto& [head_dim, table_dim] : {std::pair{2, 2}, {64, 64}, {10, 6}, {80, 32}, {64, 0}}) {
    check_case({3, head_dim, table_dim, {0, 7}, {}});
    check_case({1, head_dim, table_dim, {0, 1}, {kPositions - 1}});
    check_case({4, head_dim, table_dim, {5, 8, 8, 9, 30}, {0, 3, 600, 17}});
    check_case({9, head_dim, table_dim, {0, 500, 501, 502, 900}, {200, 0, 699, 13}});
  }
  check_case({3, 8, 8, {0}, {}});
  check_case({3, 8, 8, {0, 0}, {kPositions}});
}

void run_spoiled(std::int64_t head_dim, std::int64_t first_position) {
  RotaryProblem problem({2, 8, 8, {0, 2, 5}, {0, first_position}});
  RotaryCall call = problem.call();
  call.head_dim = head_dim;
  rotate(problem.table(), call);
}

void refuses_calls() {
  CHECK_THROWS(run_spoiled(6, 0), "at least the 8 features of the rotary table, got 6");
  CHECK_THROWS(run_spoiled(8, -1), "positions must be from 0 to 699, got 3 tokens from position -1 on in sequence 1");
  CHECK_THROWS(run_spoiled(8, kPositions - 2), "3 tokens from position 698 on");
}

}  // namespace

int main() {
  sequences();
  refuses_calls();
  return check::result();
}
