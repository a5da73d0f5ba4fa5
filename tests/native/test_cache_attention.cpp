// cache_attention() with every instruction set and every type of caches against double precision: windows, soft caps,
// groups of heads, keys in parts, batches of unequal sequences, threads; and what store_rows() stores.
#include "cache_case.h"
#include "check.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string name_of(DType dtype) { return dtype_entry(dtype).name; }

/// Heads of as many features for keys as for values, in order.
AttentionCase cached(std::int64_t queries, std::int64_t keys, std::int64_t head_dim, std::int64_t heads,
                     std::int64_t key_heads, std::int64_t batch = 1, std::int64_t window = 0, float soft_cap = 0.0F) {
  return {queries, keys, head_dim, head_dim, Mask::none, true, heads, key_heads, batch, window, soft_cap};
}

void check_case(const AttentionCase& c, DType dtype) {
  CacheProblem problem(c, dtype);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    problem.run();
    const std::string wrong = problem.wrong();
    CHECK_CASE(wrong.empty(), c.name() + ", " + name_of(dtype) + ": " + wrong);
  }
}

/// As many queries as the kernels for few and for many take, from the whole of a text to the next token of one.
void windows(DType dtype) {
  int at = 0;
  for (const auto& [queries, keys] : {std::pair{1, 1}, {1, 200}, {2, 150}, {7, 7}, {7, 300}, {20, 20}, {40, 129}}) {
    for (const std::int64_t window : {0, 1, 2, 16, 33, 128, 500}) {
      for (const std::int64_t group : {1, 3}) {
        const float soft_cap = ++at % 4 == 0 ? 2.0F : 0.0F;
        check_case(cached(queries, keys, at % 2 == 0 ? 24 : 37, 3, 3 / group, 2, window, soft_cap), dtype);
      }
    }
  }
  check_case(cached(300, 300, 16, 1, 1, 1, 40), dtype);
}

/// Features around the length of vectors; caps far above the scores, near them, and below, where all scores end.
void features_and_soft_caps(DType dtype) {
  for (const std::int64_t queries : {1, 3, 40}) {
    for (const std::int64_t head_dim : {1, 4, 7, 8, 9, 31, 32, 64, 80, 128}) {
      check_case(cached(queries, 140, head_dim, 2, 1), dtype);
    }
    for (const float soft_cap : {0.01F, 1.0F, 2.5F, 50.0F}) {
      check_case(cached(queries, 140, 32, 4, 2, 1, 0, soft_cap), dtype);
    }
  }
}

/// One query each of heads that share keys, fewer and more than the kernel for few queries takes; keys in parts, the
/// last one of a single key.
void groups_and_parts(DType dtype) {
  for (const auto& [heads, key_heads] : {std::pair{9, 3}, {4, 1}, {8, 1}, {14, 2}, {40, 1}}) {
    for (const std::int64_t keys : {1, 160, 513, 1500}) {
      check_case(cached(1, keys, 64, heads, key_heads), dtype);
      check_case(cached(1, keys, 64, heads, key_heads, 2, 700, 5.0F), dtype);
    }
  }
  for (const std::int64_t queries : {2, 7}) {
    check_case(cached(queries, 1025, 32, 4, 2), dtype);
    check_case(cached(queries, 1400, 32, 4, 2, 2, 600), dtype);
  }
}

/// Keys before all windows are not read: NaN among them would stay.
void keys_before_the_window_are_skipped(DType dtype) {
  for (const std::int64_t queries : {1, 5, 16, 40}) {
    const std::int64_t window = 30;
    const std::int64_t keys = 300;
    CacheProblem problem(cached(queries, keys, 16, 4, 2, 1, window), dtype);
    const std::vector<float> nan(static_cast<std::size_t>(keys * 2 * 16), kNan);
    const std::int64_t hidden = keys - queries - window + 1;
    store_rows(nan.data(), hidden, 2, 16, problem.caches()[0].keys, 0);
    store_rows(nan.data(), hidden, 2, 16, problem.caches()[0].values, 0);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      problem.run();
      const std::vector<float> output = problem.output();
      CHECK_CASE(std::all_of(output.begin(), output.end(), [](float x) { return std::isfinite(x); }),
                 isa + ", " + std::to_string(queries) + " queries");
    }
  }
}

/// A key or a value that is no number reaches every query that sees it.
void what_is_no_number_comes_through(DType dtype) {
  for (const std::int64_t queries : {1, 40}) {
    for (const float poison : {kNan, kInfinity}) {
      CacheProblem problem(cached(queries, 700, 16, 4, 2), dtype);
      const std::vector<float> row(2 * 16, poison);
      store_rows(row.data(), 1, 2, 16, problem.caches()[0].values, 600);
      for (const auto& isa : available_isas()) {
        use_isa(isa);
        problem.run();
        const std::vector<float> output = problem.output();
        CHECK_CASE(std::none_of(output.begin(), output.end(), [](float x) { return std::isfinite(x); }),
                   isa + ", " + name_of(dtype));
      }
    }
  }
}

void thread_counts_agree(DType dtype) {
  for (const AttentionCase& c : {cached(300, 300, 32, 4, 2, 1, 70), cached(1, 2048, 64, 9, 3),
                                 cached(1, 3000, 64, 4, 1), cached(33, 700, 32, 2, 1, 2, 200, 30.0F)}) {
    CacheProblem problem(c, dtype);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      set_pool_threads(1);
      problem.run();
      CHECK_CASE(problem.wrong().empty(), c.name() + ": " + problem.wrong());
      const std::vector<float> alone = problem.output();
      for (const int threads : {2, 3}) {
        set_pool_threads(threads);
        problem.run();
        CHECK_CASE(same_bits(problem.output(), alone), c.name() + ", " + std::to_string(threads) + " threads");
      }
      set_pool_threads(1);
    }
  }
}

/// Sequences of unequal lengths over caches of unequal types have the bits that they have alone.
void batches_are_as_sequences_alone() {
  constexpr std::int64_t kHeads = 6;
  constexpr std::int64_t kHeadDim = 24;
  const std::vector<std::int64_t> offsets{0, 1, 41, 46, 47};
  const std::vector<float> query = random_floats(offsets.back() * kHeads * kHeadDim, 7);
  std::vector<std::unique_ptr<CacheProblem>> problems;
  std::vector<CachedSequence> caches;
  for (const auto& [keys, dtype] :
       {std::pair{900, DType::int8}, {40, DType::float32}, {600, DType::bfloat16}, {3, DType::float32}}) {
    problems.push_back(std::make_unique<CacheProblem>(cached(1, keys, kHeadDim, kHeads, 2), dtype));
    caches.push_back(problems.back()->caches()[0]);
  }
  const auto run = [&](std::size_t first, std::int64_t count) {
    std::vector<float> output(query.size(), 7.0F);
    const std::int64_t at = offsets[first] * kHeads * kHeadDim;
    cache_attention({query.data() + at,
                     output.data() + at,
                     kHeads,
                     2,
                     kHeadDim,
                     {offsets.data() + first, count},
                     caches.data() + first,
                     0.3F,
                     500});
    return output;
  };
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    std::vector<float> expected(query.size(), 7.0F);
    for (std::size_t i = 0; i < caches.size(); ++i) {
      const std::vector<float> alone = run(i, 1);
      const auto at = offsets[i] * kHeads * kHeadDim;
      std::copy(alone.begin() + at, alone.begin() + offsets[i + 1] * kHeads * kHeadDim, expected.begin() + at);
    }
    for (const int threads : {1, 3}) {
      set_pool_threads(threads);
      CHECK_CASE(same_bits(run(0, 4), expected), isa);
    }
    set_pool_threads(1);
  }
}

/// Rows of random numbers of all sizes, of zeros, of tiny and of huge ones: the same of every instruction set, wherever
/// a token lies, and as near as the type allows.
void stores_rows() {
  constexpr std::int64_t kTokens = 40;
  constexpr std::int64_t kHeads = 2;
  for (const std::int64_t head_dim : {1, 7, 24, 64, 67}) {
    std::vector<float> input = random_floats(kTokens * kHeads * head_dim, 5);
    for (std::size_t i = 0; i < input.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i) / head_dim;
      input[i] = row == 5 ? 0.0F : input[i] * std::ldexp(1.0F, static_cast<int>(row * 2 - 100));
    }
    StoredRows bf16(DType::bfloat16, kHeads, kTokens + 2, head_dim);
    StoredRows int8(DType::int8, kHeads, kTokens + 2, head_dim);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      for (StoredRows* stored : {&bf16, &int8}) {
        store_rows(input.data(), 3, kHeads, head_dim, stored->rows(), 2);
        store_rows(input.data() + 3 * kHeads * head_dim, kTokens - 3, kHeads, head_dim, stored->rows(), 5);
      }
      for (std::int64_t i = 0; i < kTokens * kHeads * head_dim; ++i) {
        const std::int64_t token = i / head_dim / kHeads;
        const std::int64_t head = i / head_dim % kHeads;
        const float number = input[static_cast<std::size_t>(i)];
        const std::int64_t row = head * (kTokens + 2) + token + 2;
        const float* first = input.data() + i / head_dim * head_dim;
        const float most = std::abs(*std::max_element(
            first, first + head_dim, [](float one, float other) { return std::abs(one) < std::abs(other); }));
        const float scale = most * (1.0F / 127.0F);
        CHECK(bf16.number(head, token + 2, i % head_dim) == to_float(to_bfloat16(number)));
        CHECK(int8.rows().scales[row] == scale);
        const float steps = scale == 0.0F ? 0.0F : std::nearbyint(number * (1.0F / scale));
        CHECK_CASE(to_float(int8.int8()[row * head_dim + i % head_dim]) == steps, isa);
        CHECK(std::abs(steps) <= 127.0F);
      }
    }
  }
}

/// What is not finite, or too small for a scale.
void stores_rows_that_have_no_scale() {
  constexpr std::int64_t kHeadDim = 20;
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    for (const float number : {kNan, kInfinity, -kInfinity, 1e-39F}) {
      std::vector<float> row(kHeadDim, 0.0F);
      row[17] = number;
      StoredRows bf16(DType::bfloat16, 1, 1, kHeadDim);
      StoredRows int8(DType::int8, 1, 1, kHeadDim);
      store_rows(row.data(), 1, 1, kHeadDim, bf16.rows(), 0);
      store_rows(row.data(), 1, 1, kHeadDim, int8.rows(), 0);
      const float found = bf16.number(0, 0, 17);
      CHECK_CASE(std::isnan(number) ? std::isnan(found) : found == to_float(to_bfloat16(number)), isa);
      for (std::int64_t f = 0; f < kHeadDim; ++f) CHECK_CASE(int8.int8()[f] == 0, isa);
      const float scale = int8.rows().scales[0];
      CHECK_CASE(std::isfinite(number) ? scale == 0.0F : std::isnan(scale), isa);
    }
  }
}

}  // namespace

int main() {
  set_pool_threads(1);
  for (const DType dtype : kCacheDTypes) {
    windows(dtype);
    features_and_soft_caps(dtype);
    groups_and_parts(dtype);
    keys_before_the_window_are_skipped(dtype);
    what_is_no_number_comes_through(dtype);
    thread_counts_agree(dtype);
  }
  batches_are_as_sequences_alone();
  stores_rows();
  stores_rows_that_have_no_scale();
  for (const DType dtype : kCacheDTypes) CHECK(cache_dtype_named(name_of(dtype)) == dtype);
  for (const char* name : {"float16", "int4", ""}) {
    CHECK_THROWS(cache_dtype_named(name), "are stored in float32, bfloat16 or int8, got '" + std::string(name) + "'");
  }
  return check::result();
}
