// attention() over a cache of keys and values, as in generating text, with every instruction set: windows, soft caps
// and groups of heads against double precision, caches that lie head by head, threads, and calls that must be refused.
#include "attention_case.h"
#include "check.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

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

/// As many queries as the kernels for few and for many take, from the whole of a text to the next token of one.
void windows() {
  int at = 0;
  for (const auto& [queries, keys] : {std::pair{1, 1}, {1, 200}, {2, 150}, {7, 7}, {7, 300}, {20, 3}, {40, 129}}) {
    for (const std::int64_t window : {1, 2, 16, 33, 128, 500}) {
      for (const std::int64_t group : {1, 3}) {
        ++at;
        const float soft_cap = at % 4 == 0 ? 2.0F : 0.0F;
        check_case({queries, keys, 24, 40, static_cast<Mask>(at % 6), true, 3, 3 / group, 2, window, soft_cap});
      }
    }
  }
  check_case({300, 300, 16, 16, Mask::none, true, 1, 1, 1, 40});
}

/// Caps far above the scores, near them, and below, where all scores end.
void soft_caps() {
  int at = 0;
  for (const std::int64_t queries : {1, 3, 7, 40}) {
    for (const float soft_cap : {0.01F, 1.0F, 2.5F, 50.0F}) {
      for (const bool causal : {false, true}) {
        check_case({queries, 140, 32, 17, static_cast<Mask>(++at % 6), causal, 4, 2, 1, 0, soft_cap});
      }
    }
  }
}

/// One query each of heads that share keys: fewer and more than the kernel for few queries takes.
void decodes_groups_of_heads() {
  for (const auto& [heads, key_heads] : {std::pair{9, 3}, {4, 1}, {8, 1}, {14, 2}, {40, 1}}) {
    for (const std::int64_t keys : {1, 160, 513}) {
      check_case({1, keys, 64, 64, Mask::none, true, heads, key_heads, 1});
      check_case({1, keys, 64, 64, Mask::key_bytes, true, heads, key_heads, 2, 100, 5.0F});
    }
  }
}

/// Keys and values [batch, key heads, capacity, features], none behind the last token, as a cache has them.
class Cache {
 public:
  Cache(const Heads<const float>& tokens, std::int64_t capacity)
      : shape_(tokens.shape),
        strides_{shape_[1] * capacity * shape_[3], capacity * shape_[3], shape_[3], 1},
        floats_(static_cast<std::size_t>(shape_[0] * strides_[0]), kNan) {
    for (std::int64_t i = 0; i < shape_[0] * shape_[1] * shape_[2]; ++i) {
      const std::int64_t token = i % shape_[2];
      const std::int64_t head = i / shape_[2] % shape_[1];
      const std::int64_t text = i / shape_[2] / shape_[1];
      const float* row = tokens.data + text * tokens.strides[0] + head * tokens.strides[1] + token * tokens.strides[2];
      std::copy(row, row + shape_[3], floats_.data() + text * strides_[0] + head * strides_[1] + token * shape_[3]);
    }
  }

  Heads<const float> tokens() const { return {floats_.data(), shape_, strides_}; }

 private:
  FourSizes shape_;
  FourSizes strides_;
  std::vector<float> floats_;
};

/// A cache has the same result wherever its tokens lie.
void caches_lie_head_by_head() {
  for (const std::int64_t queries : {1, 5, 40}) {
    AttentionProblem problem({queries, 150, 24, 40, Mask::none, true, 6, 2, 2, 60}, Place::heap);
    const Cache keys(problem.call().key, 256);
    const Cache values(problem.call().value, 256);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      attention(problem.call());
      const std::vector<float> expected = problem.output();
      AttentionCall call = problem.call();
      call.key = keys.tokens();
      call.value = values.tokens();
      attention(call);
      CHECK_CASE(same_bits(problem.output(), expected), isa + ", " + std::to_string(queries) + " queries");
    }
  }
}

/// Keys before all windows are not read: NaN among them would stay NaN under a mask.
void keys_before_the_window_are_skipped() {
  for (const std::int64_t queries : {1, 5, 16, 40}) {
    const std::int64_t window = 30;
    const std::int64_t keys = 300;
    AttentionProblem problem({queries, keys, 16, 16, Mask::none, true, 4, 2, 1, window}, Place::heap);
    std::fill_n(problem.key(), (keys - queries - window + 1) * 2 * 16, kNan);
    std::fill_n(problem.value(), (keys - queries - window + 1) * 2 * 16, kNan);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      attention(problem.call());
      const std::vector<float> output = problem.output();
      CHECK_CASE(std::all_of(output.begin(), output.end(), [](float x) { return std::isfinite(x); }),
                 isa + ", " + std::to_string(queries) + " queries");
    }
  }
}

void thread_counts_agree() {
  for (const AttentionCase& c : {AttentionCase{300, 300, 32, 32, Mask::none, true, 4, 2, 1, 70},
                                 {1, 2048, 64, 64, Mask::none, true, 9, 3, 1},
                                 {33, 700, 32, 32, Mask::same_bytes, true, 2, 1, 2, 200, 30.0F}}) {
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

/// A causal call of 2 queries and 5 keys that would be good, had `spoil` not changed it.
template <class Spoil>
void run_spoiled(const Spoil& spoil) {
  AttentionProblem problem({2, 5, 8, 6, Mask::none, true}, Place::heap);
  AttentionCall call = problem.call();
  spoil(call);
  attention(call);
}

void refuses_calls() {
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.window = -1; }), "the window must not be negative, and goes with");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) {
                 c.window = 3;
                 c.causal = false;
               }),
               "got 3 without causal");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.soft_cap = -1.0F; }), "the soft cap must be finite");
  CHECK_THROWS(run_spoiled([](AttentionCall& c) { c.soft_cap = kNan; }), "the soft cap must be finite");
}

}  // namespace

int main() {
  set_pool_threads(1);
  windows();
  soft_caps();
  decodes_groups_of_heads();
  caches_lie_head_by_head();
  keys_before_the_window_are_skipped();
  thread_counts_agree();
  refuses_calls();
  return check::result();
}
