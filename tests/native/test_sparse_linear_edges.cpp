// linear() and linear_input_gradient() at the edges: inputs that are no numbers, layers without inputs or outputs,
// activation functions far from zero, and calls that must be refused.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "operators/instruction_set.h"
#include "reference.h"

using namespace sparsekit;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Calls `body()` with every instruction set in use.
template <class Body>
void for_each_isa(const Body& body) {
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    body();
  }
}

void check_poisoned(const Layer& layer, Direction direction, std::int64_t tokens) {
  const std::int64_t features = layer.inputs(direction);
  std::vector<float> input = random_floats(tokens * features, 3);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const float poison[] = {kNan, kInfinity, -kInfinity};
    for (std::int64_t i = 0; i < 3; ++i) input.data()[token * features + (7 * token + 5 * i) % features] = poison[i];
  }
  const Reference reference = reference_of(layer, direction, input.data(), tokens);
  const auto finite =
      std::count_if(reference.sums.begin(), reference.sums.end(), [](double x) { return std::isfinite(x); });
  CHECK(finite > 0 && finite < static_cast<std::int64_t>(reference.sums.size()));
  for_each_isa([&] {
    const Bytes weight = packed(layer.view());
    const std::vector<float> output = output_of(layer, weight, direction, input, tokens);
    CHECK_CASE(first_wrong(reference, output.data(), nullptr, Activation::none) == -1,
               current_isa() + ", tokens " + std::to_string(tokens));
  });
}

/// A row without a weight at an input column must not see what stands there, not even through padding. A stored weight
/// of zero is a weight: zero times infinity is NaN with every kernel.
void poison_stays_out() {
  Layer layer = random_layer(37, 150, 0.95);
  for (std::size_t i = 0; i < layer.csr.values.size(); i += 5) layer.csr.values[i] = 0.0F;
  for (const std::int64_t tokens : {1, 2, 3, 6, 17, 30, 64}) {
    check_poisoned(layer, Direction::forward, tokens);
    check_poisoned(layer, Direction::transposed, tokens);
  }
}

/// A layer with one weight per row on the diagonal: its output is the activation function of its input.
void activations_far_from_zero() {
  const std::vector<float> points = {0.0F, -0.0F, 1e-30F, -1e-30F, 1e-4F, -1e-4F,   3.0F,   -3.0F,
                                     9.0F, -9.0F, 50.0F,  -50.0F,  88.0F, -88.0F,   104.0F, -104.0F,
                                     1e4F, -1e4F, 1e18F,  -1e18F,  kNan,  kInfinity};
  const auto size = static_cast<std::int64_t>(points.size());
  std::vector<float> diagonal(points.size() * points.size());
  for (std::size_t i = 0; i < points.size(); ++i) diagonal[i * points.size() + i] = 1.0F;
  const Layer layer = layer_from_dense(std::move(diagonal), size, size);
  const Reference reference = reference_of(layer, Direction::forward, points.data(), 1);
  for_each_isa([&] {
    const Bytes weight = packed(layer.view());
    for (int kind = 0; kind <= static_cast<int>(Activation::silu); ++kind) {
      std::vector<float> output(points.size(), 7.0F);
      LinearCall call = plain_call(layer, weight, Direction::forward, points.data(), 1, output.data());
      call.activation = static_cast<Activation>(kind);
      linear(call);
      const std::int64_t wrong = first_wrong(reference, output.data(), nullptr, call.activation);
      CHECK_CASE(wrong == -1, current_isa() + ", activation " + std::to_string(kind) + " of " +
                                  std::to_string(points.data()[wrong]) + " is " + std::to_string(output.data()[wrong]));
    }
  });
}

/// The sum of nothing is 0, so the output is the bias, whatever earlier calls left in working memory.
void no_inputs() {
  const Layer busy = random_layer(33, 40, 0.0);
  const Layer layer = random_layer(33, 0, 0.0);
  const std::vector<float> bias = random_floats(33, 4);
  for_each_isa([&] {
    const Bytes busy_weight = packed(busy.view());
    const Bytes weight = packed(layer.view());
    for (const std::int64_t tokens : {1, 2, 5, 16, 30, 64}) {
      const std::vector<float> input = random_floats(tokens * 40, 5);
      std::vector<float> output = output_of(busy, busy_weight, Direction::forward, input, tokens);
      LinearCall call = plain_call(layer, weight, Direction::forward, input.data(), tokens, output.data());
      call.bias = bias.data();
      linear(call);
      bool all_bias = true;
      for (std::size_t i = 0; i < output.size(); ++i) all_bias = all_bias && output[i] == bias[i % 33];
      CHECK_CASE(all_bias, current_isa() + ", tokens " + std::to_string(tokens));
    }
  });
}

/// Forward there is nothing to write; the gradient for the inputs is zero.
void no_outputs() {
  const Layer layer = random_layer(0, 33, 0.0);
  for_each_isa([&] {
    const Bytes weight = packed(layer.view());
    for (const std::int64_t tokens : {1, 3, 64}) {
      std::vector<float> floats(static_cast<std::size_t>(tokens * 33), 7.0F);
      linear(plain_call(layer, weight, Direction::forward, floats.data(), tokens, nullptr));
      run_call(plain_call(layer, weight, Direction::transposed, nullptr, tokens, floats.data()), Direction::transposed);
      CHECK_CASE(std::all_of(floats.begin(), floats.end(), [](float f) { return f == 0.0F; }), current_isa());
    }
  });
}

/// A call on a layer with 7 inputs and 5 outputs that would be good, had `spoil` not changed it.
template <class Spoil>
void run_spoiled(Direction direction, const Spoil& spoil) {
  const Layer layer = random_layer(5, 7, 0.5);
  const Bytes weight = packed(layer.view());
  const std::vector<float> input(14);
  std::vector<float> output(14);
  LinearCall call = plain_call(layer, weight, direction, input.data(), 2, output.data());
  spoil(call);
  run_call(call, direction);
}

void refuses_calls() {
  const auto forward = Direction::forward;
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.input_features = 8; }),
               "expected 7 features in and 5 out, got 8 and 5");
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.output_features = 4; }),
               "expected 7 features in and 5 out, got 7 and 4");
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.tokens = -1; }), "tokens must not be negative, got -1");
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.input_stride = 6; }), "at least 7 floats apart, got 6");
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.packed_bytes -= 1; }), "the packed weight says it has");
  CHECK_THROWS(run_spoiled(forward, [](LinearCall& c) { c.packed_bytes = 0; }), "has at least 128 bytes, got 0");
  for (const int kind : {-1, 5}) {
    CHECK_THROWS(run_spoiled(forward, [&](LinearCall& c) { c.activation = static_cast<Activation>(kind); }),
                 "unknown activation function " + std::to_string(kind));
  }
}

void refuses_gradient_calls() {
  const auto transposed = Direction::transposed;
  const float bias[7] = {};
  CHECK_THROWS(run_spoiled(transposed, [](LinearCall& c) { c.input_features = 7; }),
               "expected 5 features in and 7 out, got 7 and 7");
  CHECK_THROWS(run_spoiled(transposed, [](LinearCall& c) { c.tokens = -9; }), "tokens must not be negative, got -9");
  CHECK_THROWS(run_spoiled(transposed, [&](LinearCall& c) { c.bias = bias; }), "neither bias nor activation function");
  CHECK_THROWS(run_spoiled(transposed, [](LinearCall& c) { c.activation = Activation::relu; }),
               "neither bias nor activation function");
}

void instruction_sets() {
  const auto isas = available_isas();
  CHECK(!isas.empty() && isas.front() == "scalar");
  for (const auto& isa : isas) {
    use_isa(isa);
    CHECK(current_isa() == isa);
  }
  use_isa("scalar");
  CHECK_THROWS_AS(KernelUnavailable, use_isa("mmx"), "instruction set 'mmx' cannot run here; this machine has scalar");
  CHECK(current_isa() == "scalar");
}

}  // namespace

int main() {
  poison_stays_out();
  activations_far_from_zero();
  no_inputs();
  no_outputs();
  refuses_calls();
  refuses_gradient_calls();
  instruction_sets();
  return check::result();
}
