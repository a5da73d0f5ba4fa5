#include "encoder_layer.h"

#include <algorithm>

#include "../operators/layer_norm.h"
#include "../operators/sparse_linear.h"
#include "feed_forward.h"

namespace sparsekit {
namespace {

PositionTables positions_of(const EncoderLayer& layer, const LayerInput& input) {
  const std::span<const std::int32_t> rows = input.distance_rows;
  return {layer.position_key, layer.position_query, rows.data(), (static_cast<std::int64_t>(rows.size()) + 1) / 2};
}

/// space.sums = attention_output(attention(query(x), key(x), value(x))), of first tokens where they go on alone.
/// Queries of all tokens are computed even then: the three weights share a packed input.
void attend(const EncoderLayer& layer, const LayerInput& input, const float* x, const EncoderSpace& space) {
  const std::int64_t tokens = input.sequences.tokens();
  const std::int64_t head_dim = input.options.head_dim;
  const std::int64_t heads = layer.query.out_features / head_dim;
  float* const query = space.rest;
  float* const key = query + tokens * layer.query.out_features;
  float* const value = key + tokens * layer.key.out_features;
  float* const context = value + tokens * layer.value.out_features;
  joined_linear({linear_call(layer.query, x, tokens, query), linear_call(layer.key, x, tokens, key),
                 linear_call(layer.value, x, tokens, value)});
  if (layer.rotary.positions > 0) {
    for (float* rotated : {query, key}) rotate(layer.rotary, {heads, head_dim, input.sequences, nullptr, rotated});
  }
  sequence_attention({query, key, value, context, heads, head_dim, head_dim, input.sequences,
                      input.options.attention_scale, input.biases, layer.window, positions_of(layer, input),
                      input.first_tokens});
  if (input.first_tokens) gather_first_tokens(input.sequences, layer.value.out_features, context);
  linear(linear_call(layer.attention_output, context, input.rows(), space.sums));
}

/// space.sums = down(activation(up(x))), gated where there is a gate.
void run_feed_forward(const EncoderLayer& layer, const LayerInput& input, const float* x, const EncoderSpace& space) {
  feed_forward(layer.up, layer.gate, layer.down, static_cast<Activation>(input.options.activation), x, input.rows(),
               space.rest, space.sums);
}

}  // namespace

std::int64_t layer_floats(const EncoderLayer& layer) {
  const std::int64_t attention = 2 * layer.query.out_features + 2 * layer.value.out_features;
  return std::max(attention, (layer.gate ? 2 : 1) * layer.up.out_features);
}

void run_post_norm(const EncoderLayer& layer, const LayerInput& input, float* x, const EncoderSpace& space) {
  const auto add_norm = [&](const NormWeights& norm) {
    add_layer_norm({x, space.sums, x, input.rows(), input.features, norm.weight, norm.bias, input.options.norm_eps});
  };
  attend(layer, input, x, space);
  if (input.first_tokens) gather_first_tokens(input.sequences, input.features, x);
  add_norm(layer.attention_norm);
  run_feed_forward(layer, input, x, space);
  add_norm(layer.output_norm);
}

void run_pre_norm(const EncoderLayer& layer, bool first, const LayerInput& input, float* x, const EncoderSpace& space) {
  const auto add_norm = [&](const NormWeights& norm, const float* added, std::int64_t rows) {
    add_layer_norm({x, added, space.normed, rows, input.features, norm.weight, norm.bias, input.options.norm_eps,
                    added == nullptr ? nullptr : x});
  };
  const bool normed = layer.attention_norm.weight != nullptr;
  if (normed) add_norm(layer.attention_norm, first ? nullptr : space.sums, input.sequences.tokens());
  attend(layer, input, normed ? space.normed : x, space);
  if (input.first_tokens) gather_first_tokens(input.sequences, input.features, x);
  add_norm(layer.output_norm, space.sums, input.rows());
  run_feed_forward(layer, input, space.normed, space);
}

}  // namespace sparsekit
