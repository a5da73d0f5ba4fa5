// linear() and linear_input_gradient() on several threads: right, and bit for bit the same for every number of them.
#include <algorithm>
#include <atomic>
#include <thread>

#include "check.h"
#include "operators/instruction_set.h"
#include "reference.h"
#include "threading/parallel.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

// Both layers are above the work from which threads are used: 1'000'000 multiply-adds, with at least 8 tokens
// counted. Their sizes leave the last block and the last 16 rows incomplete.

const Layer& large_layer() {
  static const Layer layer = random_layer(453, 610, 0.5);
  return layer;
}

/// All weights in a few rows: shares of equal work have very different sizes, and empty rows still need their sums.
Layer uneven_layer() {
  constexpr std::int64_t columns = 2100;
  std::vector<float> dense(70 * columns);
  const std::vector<float> full_rows = random_floats(15 * columns, 5);
  std::copy(full_rows.begin(), full_rows.end(), dense.begin() + 27 * columns);
  return layer_from_dense(std::move(dense), 70, columns);
}

/// One thread must be right, and more threads must give the same.
void check_thread_counts(const Layer& layer, const Bytes& weight, Direction direction, const std::vector<float>& input,
                         const Reference& reference) {
  const auto tokens = static_cast<std::int64_t>(reference.sums.size()) / reference.outputs;
  const std::string name = current_isa() + ", tokens " + std::to_string(tokens) +
                           (direction == Direction::forward ? " forward" : " transposed");
  set_pool_threads(1);
  const std::vector<float> expected = output_of(layer, weight, direction, input, tokens);
  CHECK_CASE(first_wrong(reference, expected.data(), nullptr, Activation::none) == -1, name);
  for (const int threads : {2, 3, 4}) {
    set_pool_threads(threads);
    CHECK_CASE(same_bits(output_of(layer, weight, direction, input, tokens), expected),
               name + ", " + std::to_string(threads) + " threads");
  }
}

void check_batch(const Layer& given, std::int64_t tokens, Layout layout = Layout::sell_f32) {
  const Bytes weight = packed(given.view(), layout);
  const Layer layer = held(given, weight);
  for (const Direction direction : {Direction::forward, Direction::transposed}) {
    if (direction == Direction::transposed && !layout_entry(layout).has_gradient()) continue;
    const std::vector<float> input = random_floats(tokens * layer.inputs(direction), 6);
    const Reference reference = reference_of(layer, direction, input.data(), tokens);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      check_thread_counts(layer, weight, direction, input, reference);
    }
  }
}

void thread_counts_agree() {
  for (const std::int64_t tokens : {1, 3, 8, 37, 64, 130}) check_batch(large_layer(), tokens);
  for (const std::int64_t tokens : {5, 40, 150}) {
    for (const Layout layout : {Layout::sell_f32, Layout::csr_f32, Layout::dense_f32})
      check_batch(uneven_layer(), tokens, layout);
  }
  for (const Layout layout : float_layouts()) {  // several pieces of rows, shared by threads
    const Layer layer = random_layer(1101, 610, 0.7, 1, layout_entry(layout).height);
    for (const std::int64_t tokens : {1, 70}) check_batch(layer, tokens, layout);
  }
}

/// Two callers at once, both with work for several threads: one of them finds the pool busy.
void callers_agree() {
  set_pool_threads(3);
  const Bytes weight = packed(large_layer().view());
  const std::vector<float> input = random_floats(64 * large_layer().in_features, 7);
  const auto compute = [&] { return output_of(large_layer(), weight, Direction::forward, input, 64); };
  const std::vector<float> expected = compute();
  std::atomic<int> wrong{0};
  const auto call = [&] {
    for (int round = 0; round < 20; ++round) wrong += same_bits(compute(), expected) ? 0 : 1;
  };
  std::thread first(call);
  std::thread second(call);
  first.join();
  second.join();
  CHECK(wrong.load() == 0);
}

std::atomic<int> outside_calls{0};

/// Pieces of two tasks, last piece first: operators may rely neither on the order nor on single tasks.
std::int32_t backwards(std::int64_t begin, std::int64_t end, std::int64_t, ParallelBody body, void* context) {
  ++outside_calls;
  for (std::int64_t last = end; last > begin; last -= 2) body(std::max(begin, last - 2), last, context);
  return 0;
}

std::int32_t five_threads(std::uint32_t* count) {
  *count = 5;
  return 0;
}

void outside_threads_agree() {
  set_pool_threads(1);
  const Bytes weight = packed(large_layer().view());
  const std::vector<float> input = random_floats(64 * large_layer().in_features, 8);
  const auto expected = output_of(large_layer(), weight, Direction::forward, input, 64);
  CHECK(!uses_outside_threads() && num_threads() == 1);
  use_parallel(backwards, five_threads);
  CHECK(uses_outside_threads() && num_threads() == 5);
  CHECK(same_bits(output_of(large_layer(), weight, Direction::forward, input, 64), expected));
  CHECK(outside_calls.load() > 0);
  use_parallel(nullptr, nullptr);
  CHECK(!uses_outside_threads() && num_threads() == 1);
}

}  // namespace

int main() {
  thread_counts_agree();
  callers_agree();
  outside_threads_agree();
  return check::result();
}
