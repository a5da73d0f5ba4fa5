// joined_linear() gives bit for bit what linear() gives for each weight: every instruction set and layout, weights of
// different heights, few and many tokens, threads, and calls that must be refused.
#include "check.h"
#include "layer.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kInputs = 300;

struct Part {
  Layer layer;
  Bytes weight;
  std::vector<float> bias;
  Activation activation;
};

std::vector<Part> parts_of(Layout layout) {
  const std::int64_t height = layout_entry(layout).height;
  std::vector<Part> parts;
  for (const std::int64_t outputs : {300, 7, 129}) {
    const auto seed = static_cast<unsigned>(outputs);
    Layer layer = random_layer(outputs, kInputs, 0.7, seed, height);
    Bytes weight = packed(layer.view(), layout);
    parts.push_back({std::move(layer), std::move(weight), random_floats(outputs, seed + 1), Activation::none});
  }
  parts[0].bias.clear();
  parts[2].activation = Activation::silu;
  return parts;
}

std::vector<LinearCall> calls_of(const std::vector<Part>& parts, const std::vector<float>& input,
                                 std::vector<std::vector<float>>& outputs) {
  const std::int64_t tokens = static_cast<std::int64_t>(input.size()) / kInputs;
  std::vector<LinearCall> calls;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    outputs.emplace_back(static_cast<std::size_t>(tokens * parts[i].layer.out_features), 1e30F);
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    LinearCall call =
        plain_call(parts[i].layer, parts[i].weight, Direction::forward, input.data(), tokens, outputs[i].data());
    call.bias = parts[i].bias.empty() ? nullptr : parts[i].bias.data();
    call.activation = parts[i].activation;
    calls.push_back(call);
  }
  return calls;
}

void check_parts(const std::vector<Part>& parts, const std::string& name) {
  for (const std::int64_t tokens : {0, 1, 2, 9, 70, 200}) {
    const std::vector<float> input = random_floats(tokens * kInputs, 3);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      set_pool_threads(1);
      std::vector<std::vector<float>> expected;
      for (const LinearCall& call : calls_of(parts, input, expected)) linear(call);
      for (const int threads : {1, 2, 3}) {
        set_pool_threads(threads);
        std::vector<std::vector<float>> found;
        joined_linear(calls_of(parts, input, found));
        for (std::size_t i = 0; i < parts.size(); ++i) {
          CHECK_CASE(same_bits(found[i], expected[i]), isa + ", " + name + ", tokens " + std::to_string(tokens) + ", " +
                                                           std::to_string(threads) + " threads, part " +
                                                           std::to_string(i));
        }
      }
    }
  }
  set_pool_threads(1);
}

/// Layers that are packed differently are computed one after the other.
void check_mixed() {
  std::vector<Part> parts = parts_of(Layout::sell_f32);
  parts[1].weight = packed(parts[1].layer.view(), Layout::csr_bf16);
  parts[2].weight = packed(parts[2].layer.view(), Layout::csr_bf16);
  check_parts(parts, "two layouts");
}

void refuses_calls() {
  const std::vector<Part> parts = parts_of(Layout::sell_f32);
  const std::vector<float> input = random_floats(kInputs, 3);
  std::vector<std::vector<float>> outputs;
  const std::vector<LinearCall> calls = calls_of(parts, input, outputs);
  CHECK_THROWS(joined_linear({}), "must be at least one");
  std::vector<LinearCall> other = calls;
  other[1].tokens = 0;
  CHECK_THROWS(joined_linear(other), "must have the same input");
  other = calls;
  other[2].output_features = 5;
  CHECK_THROWS(joined_linear(other), "expected 300 features in and 129 out, got 300 and 5");
}

}  // namespace

int main() {
  for (const LayoutEntry& entry : layout_entries()) check_parts(parts_of(entry.layout), entry.name);
  check_mixed();
  refuses_calls();
  return check::result();
}
