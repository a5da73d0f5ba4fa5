// attention() with every instruction set against double precision: awkward sizes, masks of every kind, groups of heads,
// operands right before a page that cannot be accessed, threads, numbers that are none, and calls that must be refused.
#include "attention_case.h"
#include "check.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void check_case(const AttentionCase& c, Place place = Place::page_end) {
  AttentionProblem problem(c, place);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    attention(problem.call());
    const std::string wrong = problem.wrong();
    CHECK_CASE(wrong.empty(), c.name() + ": " + wrong);
  }
}

/// Every pair of sizes, and with them the kinds of mask, with and without order.
void sizes() {
  int at = 0;
  for (const std::int64_t tokens : {1, 2, 3, 7, 8, 15, 16, 17, 33, 128, 300}) {
    for (const std::int64_t features : {1, 8, 31, 32, 33, 64, 80, 128}) {
      ++at;
      const auto batch = tokens > 100 ? 1 : 2;
      check_case({tokens, tokens, features, features, static_cast<Mask>(at % 6), at % 3 == 0, 2, 2, batch},
                 static_cast<Place>(at % 3));
    }
  }
}

/// More keys than queries, as with a cache, and more queries than keys, of which the first see nothing in order.
void queries_and_keys_differ() {
  for (const auto& [queries, keys] : {std::pair{1, 300}, {3, 131}, {4, 9}, {7, 200}, {40, 129}, {20, 3}, {3, 2}}) {
    for (int mask = 0; mask < 6; ++mask) {
      for (const bool causal : {false, true}) {
        check_case({queries, keys, 24, 40, static_cast<Mask>(mask), causal});
      }
    }
  }
}

void groups_of_heads() {
  for (const std::int64_t queries : {1, 2, 35}) {
    for (int mask = 0; mask < 6; ++mask) {
      check_case({queries, 150, 32, 17, static_cast<Mask>(mask), mask % 2 == 0, 6, 2});
      check_case({queries, 40, 20, 64, static_cast<Mask>(mask), true, 5, 1});
    }
  }
}

void no_keys_and_nothing_at_all() {
  for (const AttentionCase& c : {AttentionCase{3, 0, 8, 8},
                                 {40, 0, 8, 8},
                                 {0, 5, 8, 8},
                                 {4, 4, 8, 0},
                                 {4, 4, 0, 8},
                                 {4, 4, 8, 8, Mask::none, false, 0, 0},
                                 {4, 4, 8, 8, Mask::none, false, 2, 2, 0}}) {
    check_case(c);
  }
}

/// Scores far beyond what exp can hold.
void large_scores() {
  for (const std::int64_t queries : {2, 50}) {
    AttentionProblem problem({queries, 200, 16, 16}, Place::heap);
    for (std::int64_t i = 0; i < 2 * 200 * 2 * 16; ++i) problem.key()[i] *= 300.0F;
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      attention(problem.call());
      CHECK_CASE(problem.wrong().empty(), isa + ": " + problem.wrong());
    }
  }
}

/// What is no number in one text reaches all its queries and no other text.
void poison_stays_in_its_text() {
  for (const std::int64_t queries : {2, 50}) {
    for (const float poison : {kNan, kInfinity}) {
      AttentionProblem problem({queries, 40, 16, 16}, Place::heap);
      for (std::int64_t d = 0; d < 2 * 16; ++d) problem.value()[7 * 2 * 16 + d] = poison;
      for (const auto& isa : available_isas()) {
        use_isa(isa);
        attention(problem.call());
        const std::vector<float> output = problem.output();
        const auto none = [](float x) { return !std::isfinite(x); };
        const auto middle = output.begin() + static_cast<std::ptrdiff_t>(output.size() / 2);
        CHECK_CASE(std::all_of(output.begin(), middle, none), isa);
        CHECK_CASE(std::none_of(middle, output.end(), none), isa);
      }
    }
  }
}

void thread_counts_agree() {
  for (const AttentionCase& c : {AttentionCase{130, 130, 32, 32, Mask::bytes, true},
                                 {300, 90, 64, 16, Mask::floats},
                                 {1, 3000, 64, 64, Mask::none, false, 6, 2},
                                 {33, 700, 32, 32, Mask::same_bytes}}) {
    AttentionProblem problem(c, Place::shifted);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      set_pool_threads(1);
      attention(problem.call());
      CHECK_CASE(problem.wrong().empty(), c.name() + ": " + problem.wrong());
      const std::vector<float> alone = problem.output();
      for (const int threads : {2, 3}) {
        set_pool_threads(threads);
        attention(problem.call());
        CHECK_CASE(same_bits(problem.output(), alone), c.name() + ", " + std::to_string(threads) + " threads");
      }
      set_pool_threads(1);
    }
  }
}

/// A call with 4 heads of 3 queries and 5 keys that would be good, had `spoil` not changed it.
template <class Spoil>
void run_spoiled(const Spoil& spoil) {
  AttentionProblem problem({3, 5, 8, 6, Mask::bytes, false, 4, 2}, Place::heap);
  AttentionCall call = problem.call();
  spoil(call);
  attention(call);
}

void refuses_calls() {
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.key.shape[1] = 3; }),
               "must be a multiple of those of the key, got 4 and 3");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.key.shape[1] = 0; }), "got 4 and 0");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.key.shape[3] = 7; }),
               "the key must have shape [2, 2, 5, 8] to go with the others, got [2, 2, 5, 7]");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.value.shape[2] = 4; }), "the value must have shape [2, 2, 5, 6]");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.output.shape[3] = 8; }), "the output must have shape [2, 4, 3, 6]");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.mask.shape[1] = 1; }), "the mask must have shape [2, 4, 3, 5]");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.query.shape[2] = -1; }), "must not be negative");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.query.strides[3] = 2; }),
               "the last dimension of the query must be contiguous, got strides [96, 8, 32, 2]");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.mask.strides[3] = 0; }), "the last dimension of the mask");
}

}  // namespace

int main() {
  set_pool_threads(1);
  sizes();
  queries_and_keys_differ();
  groups_of_heads();
  no_keys_and_nothing_at_all();
  large_scores();
  poison_stays_in_its_text();
  thread_counts_agree();
  refuses_calls();
  return check::result();
}
