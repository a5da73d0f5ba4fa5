#include "sparse_linear.h"

#include <stdexcept>
#include <string>

#include "../formats/packed.h"
#include "instruction_set.h"
#include "sparse_product.h"

namespace sparsekit {
namespace {

void check(const LinearCall& call, std::int64_t inputs, std::int64_t outputs) {
  if (call.input_features != inputs || call.output_features != outputs) {
    throw std::invalid_argument("expected " + std::to_string(inputs) + " features in and " + std::to_string(outputs) +
                                " out, got " + std::to_string(call.input_features) + " and " +
                                std::to_string(call.output_features) + "; check the input's last dimension");
  }
  if (call.tokens < 0) throw std::invalid_argument("tokens must not be negative, got " + std::to_string(call.tokens));
  if (call.tokens > 1 && call.input_stride < inputs) {
    throw std::invalid_argument("rows of the input must be at least " + std::to_string(inputs) + " floats apart, got " +
                                std::to_string(call.input_stride));
  }
  if (call.activation < Activation::none || call.activation > Activation::silu) {
    throw std::invalid_argument("unknown activation function " +
                                std::to_string(static_cast<std::int32_t>(call.activation)));
  }
}

Product product_of(const LinearCall& call, const PackedHeader& header, Direction direction) {
  return {packed_view(header),
          header.layout,
          header.entries,
          direction,
          {call.input, call.input_stride, call.tokens},
          {call.output, call.output_features, call.tokens, call.bias, call.activation}};
}

Product forward_product(const LinearCall& call) {
  const PackedHeader& header = packed_header(call.packed, call.packed_bytes);
  check(call, header.in_features, header.out_features);
  return product_of(call, header, Direction::forward);
}

}  // namespace

void linear(const LinearCall& call) { run({forward_product(call)}, current_kernels()); }

void joined_linear(const std::vector<LinearCall>& calls) {
  if (calls.empty()) throw std::invalid_argument("joined layers must be at least one, got none");
  std::vector<Products> groups;  // of the same layout: these share the packed input
  for (const LinearCall& call : calls) {
    const LinearCall& first = calls.front();
    if (call.input != first.input || call.input_stride != first.input_stride || call.tokens != first.tokens) {
      throw std::invalid_argument("joined layers must have the same input");
    }
    const Product product = forward_product(call);
    if (groups.empty() || groups.back().front().layout != product.layout) groups.emplace_back();
    groups.back().push_back(product);
  }
  for (const Products& products : groups) run(products, current_kernels());
}

void linear_input_gradient(const LinearCall& call) {
  const PackedHeader& header = packed_header(call.packed, call.packed_bytes);
  check(call, header.out_features, header.in_features);
  if (call.bias != nullptr || call.activation != Activation::none) {
    throw std::invalid_argument("the gradient for the input takes neither bias nor activation function");
  }
  if (layout_entry(header.layout).scaled) {
    throw std::invalid_argument(
        "a weight with int8 or int4 values has no gradient for its input; use float values to train");
  }
  if (layout_entry(header.layout).family == Family::dense) {
    throw std::invalid_argument(
        "a weight packed with its zeros has no gradient for its input; pack it as 'csr' to train");
  }
  run({product_of(call, header, Direction::transposed)}, current_kernels());
}

}  // namespace sparsekit
