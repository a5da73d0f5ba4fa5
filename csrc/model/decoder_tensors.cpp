#include "decoder_tensors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sparsekit {
namespace {

/// Of layers, in `rotary_kinds`: which table turns queries and keys.
constexpr float kNotTurned = 0.0F;
constexpr float kTurned = 1.0F;
constexpr float kTurnedLocally = 2.0F;

void check_options(const DecoderOptions& options) {
  if (options.layers < 0 || options.head_dim < 1) refuse_model("sizes must not be negative");
  const auto finite = [](std::initializer_list<float> numbers) {
    return std::all_of(numbers.begin(), numbers.end(), [](float number) { return std::isfinite(number); });
  };
  if (!finite({options.norm_eps, options.attention_scale, options.attention_cap, options.logit_cap,
               options.embedding_scale}) ||
      !(options.norm_eps > 0.0F)) {
    refuse_model("its numbers must be finite");
  }
  if (options.attention_cap < 0.0F || options.logit_cap < 0.0F) refuse_model("caps must not be negative");
  if (options.activation < 0 || options.activation > static_cast<std::int32_t>(Activation::silu)) {
    refuse_model("unknown activation function");
  }
  if (options.norm < 0 || options.norm > static_cast<std::int32_t>(NormKind::root_mean_square)) {
    refuse_model("unknown norm");
  }
  if (options.parallel < 0 || options.parallel > 1) refuse_model("parallel must be 0 or 1");
  if (options.reserved != 0) refuse_model("a reserved field is not 0");
}

}  // namespace

DecoderTensors::DecoderTensors(const CompiledFile& file) : ModelTensors(file), features_(0) {
  check_options(options());
  features_ = entry(kNoLayer, Role::word_embeddings).columns;
  if (max_tokens() < 1) refuse_model("no position for a token");
}

std::int64_t DecoderTensors::max_tokens() const {
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  if (has(kNoLayer, Role::position_embeddings)) most = positions().rows;
  for (const Role role : {Role::rotary, Role::local_rotary}) {
    if (has(kNoLayer, role)) most = std::min(most, rotary(role, options().head_dim).positions);
  }
  if (most == std::numeric_limits<std::int64_t>::max()) refuse_model("neither position embeddings nor rotary ones");
  return most;
}

EmbeddingTable DecoderTensors::words() const {
  const TensorEntry& found = entry(kNoLayer, Role::word_embeddings);
  if (found.kind != TensorKind::packed) return table(Role::word_embeddings, features_);
  return packed_table(file().data(found), found.bytes);
}

LinearWeights DecoderTensors::head() const {
  const bool tied = !has(kNoLayer, Role::head);
  const std::int64_t vocabulary = entry(kNoLayer, Role::word_embeddings).rows;
  return linear(kNoLayer, tied ? Role::word_embeddings : Role::head, Role::head_bias, vocabulary, features_);
}

NormWeights DecoderTensors::optional_norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const {
  return has(layer, weight) ? norm(layer, weight, bias, features) : NormWeights{};
}

NormWeights DecoderTensors::optional_norm(std::uint32_t layer, Role weight, std::int64_t features) const {
  return has(layer, weight) ? NormWeights{vector(layer, weight, features), nullptr} : NormWeights{};
}

/// Where a weight is as long as a head; one head alone is the same either way.
bool DecoderTensors::normalizes_heads(std::uint32_t layer) const {
  const TensorEntry* found = file().find(layer, Role::query_norm_weight);
  return found != nullptr && found->rows == options().head_dim;
}

RotaryTable DecoderTensors::layer_rotary(std::uint32_t layer) const {
  const std::int64_t head_dim = options().head_dim;
  if (!has(kNoLayer, Role::rotary_kinds)) return rotary(Role::rotary, head_dim);
  const float kind = vector(kNoLayer, Role::rotary_kinds, options().layers)[layer];
  if (kind == kNotTurned) return {};
  if (kind == kTurned && has(kNoLayer, Role::rotary)) return rotary(Role::rotary, head_dim);
  if (kind == kTurnedLocally && has(kNoLayer, Role::local_rotary)) return rotary(Role::local_rotary, head_dim);
  refuse_model("layer " + std::to_string(layer) + " is turned by a table that is not there");
}

DecoderLayer DecoderTensors::layer(std::uint32_t index) const {
  const std::int64_t head_dim = options().head_dim;
  DecoderLayer layer{};
  layer.attention_norm = optional_norm(index, Role::attention_norm_weight, Role::attention_norm_bias, features_);
  layer.query = linear(index, Role::query, Role::query_bias, kAnySize, features_);
  layer.key = linear(index, Role::key, Role::key_bias, kAnySize, features_);
  layer.value = linear(index, Role::value, Role::value_bias, layer.key.out_features, features_);
  const std::int64_t queries = layer.query.out_features;
  const std::int64_t keys = layer.key.out_features;
  if (keys < 1 || keys % head_dim != 0 || queries % keys != 0) {
    refuse_model("layer " + std::to_string(index) + " must have whole heads, and as many of keys for each of queries");
  }
  layer.normalizes_heads = normalizes_heads(index);
  const auto width = [&](std::int64_t features) { return layer.normalizes_heads ? head_dim : features; };
  layer.query_norm = optional_norm(index, Role::query_norm_weight, width(queries));
  layer.key_norm = optional_norm(index, Role::key_norm_weight, width(keys));
  layer.attention_output = linear(index, Role::attention_output, Role::attention_output_bias, features_, queries);
  layer.attention_post_norm = optional_norm(index, Role::attention_post_norm_weight, features_);
  layer.output_norm = optional_norm(index, Role::output_norm_weight, Role::output_norm_bias, features_);
  layer.up = linear(index, Role::up, Role::up_bias, kAnySize, features_);
  if (has(index, Role::gate)) {
    layer.gate = linear(index, Role::gate, Role::gate_bias, layer.up.out_features, features_);
  }
  layer.down = linear(index, Role::down, Role::down_bias, features_, layer.up.out_features);
  layer.feed_forward_post_norm = optional_norm(index, Role::feed_forward_post_norm_weight, features_);
  layer.window = window(index, options().layers);
  layer.rotary = layer_rotary(index);
  return layer;
}

}  // namespace sparsekit
