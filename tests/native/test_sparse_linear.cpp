// linear() and linear_input_gradient() against double precision: every instruction set, activation function
// and size around the vector and block widths. The bound is the one of reference.h.
#include <algorithm>

#include "check.h"
#include "operators/instruction_set.h"
#include "placed_floats.h"
#include "reference.h"

using namespace sparsekit;

namespace {

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
                                       Activation::silu};

/// Where input, output and bias lie, and the floats between two rows of the input.
struct Memory {
  Place place;
  std::int64_t gap;
};

constexpr Memory kMemories[] = {
    {Place::heap, 0}, {Place::shifted, 0}, {Place::page_end, 0}, {Place::heap, 5}, {Place::page_end, 3}};

/// One for each case, drawn with a fixed seed: all of them for each case would only take longer.
const Memory& next_memory() {
  static std::mt19937 bits(5);
  return kMemories[bits() % std::size(kMemories)];
}

/// A layer with a tokens of input in one direction, and what must come out.
struct Trial {
  const Layer& layer;
  Direction direction;
  std::int64_t tokens;
  std::vector<float> input;
  Reference reference;
};

Trial make_trial(const Layer& layer, Direction direction, std::int64_t tokens) {
  std::vector<float> input = random_floats(tokens * layer.inputs(direction), 11);
  Reference reference = reference_of(layer, direction, input.data(), tokens);
  return {layer, direction, tokens, std::move(input), std::move(reference)};
}

std::string description(const Trial& trial, Activation activation, bool with_bias, const Memory& memory) {
  return std::string(current_isa()) + (trial.direction == Direction::forward ? " forward " : " transposed ") +
         std::to_string(trial.layer.out_features) + " x " + std::to_string(trial.layer.in_features) + ", nnz " +
         std::to_string(trial.layer.csr.values.size()) + ", tokens " + std::to_string(trial.tokens) + ", activation " +
         std::to_string(static_cast<int>(activation)) + (with_bias ? " with bias" : "") + ", place " +
         std::to_string(static_cast<int>(memory.place)) + ", gap " + std::to_string(memory.gap);
}

/// Ends with the last row, without a gap behind it.
std::size_t strided_size(std::int64_t rows, std::int64_t features, std::int64_t stride) {
  return static_cast<std::size_t>(rows == 0 ? 0 : (rows - 1) * stride + features);
}

void check_call(const Trial& trial, const Bytes& weight, const std::vector<float>& bias, Activation activation) {
  const Memory& memory = next_memory();
  const std::int64_t features = trial.layer.inputs(trial.direction);
  const std::int64_t stride = features + memory.gap;
  PlacedFloats input(strided_size(trial.tokens, features, stride), memory.place);
  for (std::int64_t token = 0; token < trial.tokens; ++token) {
    std::copy_n(trial.input.data() + token * features, features, input.data() + token * stride);
  }
  PlacedFloats output(trial.reference.sums.size(), memory.place);
  PlacedFloats placed_bias(bias.size(), memory.place);
  std::copy(bias.begin(), bias.end(), placed_bias.data());
  LinearCall call = plain_call(trial.layer, weight, trial.direction, input.data(), trial.tokens, output.data());
  call.input_stride = stride;
  call.bias = bias.empty() ? nullptr : placed_bias.data();
  call.activation = activation;
  run_call(call, trial.direction);
  CHECK_CASE(first_wrong(trial.reference, output.data(), call.bias, activation) == -1,
             description(trial, activation, !bias.empty(), memory));
}

void check_forward(const Layer& layer, const Bytes& weight, std::int64_t tokens) {
  const Trial trial = make_trial(layer, Direction::forward, tokens);
  const std::vector<float> bias = random_floats(layer.out_features, 12);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    for (const Activation activation : kActivations) {
      check_call(trial, weight, {}, activation);
      check_call(trial, weight, bias, activation);
    }
  }
}

void check_gradient(const Layer& layer, const Bytes& weight, std::int64_t tokens) {
  const Trial trial = make_trial(layer, Direction::transposed, tokens);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    check_call(trial, weight, {}, Activation::none);
  }
}

/// Against the values that the weight holds; that they are the nearest ones is tested where they are packed.
void check_layer(const Layer& layer, Layout layout) {
  const Bytes weight = packed(layer.view(), layout);
  const Layer exact = held(layer, weight);
  for (const std::int64_t tokens : {0, 1, 2, 3, 5, 8, 12, 17, 31, 64, 100}) {
    check_forward(exact, weight, tokens);
    if (layout_entry(layout).has_gradient()) check_gradient(exact, weight, tokens);
  }
}

void check_layout(Layout layout) {
  const std::int64_t height = layout_entry(layout).height;
  for (const std::int64_t in : {129, 513}) {
    check_layer(random_layer(3, in, 0.5, 1, height), layout);
    check_layer(random_layer(257, in, 0.9, 1, height), layout);
  }
}

}  // namespace

int main() {
  for (const std::int64_t out : {1, 5, 16, 33, 70, 130}) {
    for (const std::int64_t in : {1, 31, 32, 33, 129, 300}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) check_layer(random_layer(out, in, sparsity), Layout::sell_f32);
    }
  }
  for (const Layout layout : float_layouts()) check_layout(layout);
  return check::result();
}
