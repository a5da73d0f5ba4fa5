#include "encoder_tensors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace sparsekit {
namespace {

/// Whole numbers up to here are exact as floats.
constexpr float kMaxRow = 1 << 24;

void check_options(const EncoderOptions& options) {
  if (options.layers < 0 || options.head_dim < 1 || options.first_position < 0)
    refuse_model("sizes must not be negative");
  if (!(options.norm_eps > 0.0F) || !std::isfinite(options.norm_eps) || !std::isfinite(options.attention_scale)) {
    refuse_model("its numbers must be finite");
  }
  const auto between = [](std::int32_t value, auto first, auto last) {
    return value >= static_cast<std::int32_t>(first) && value <= static_cast<std::int32_t>(last);
  };
  if (!between(options.activation, Activation::none, Activation::silu)) refuse_model("unknown activation function");
  if (!between(options.pooling, Pooling::none, Pooling::max)) refuse_model("unknown pooling");
  if (!between(options.normalize, 0, 1)) refuse_model("normalize must be 0 or 1");
  if (!between(options.block_order, BlockOrder::post_norm, BlockOrder::pre_norm))
    refuse_model("unknown order of blocks");
  if (!between(options.task, Task::embedding, Task::token_classification)) refuse_model("unknown task");
  if (!between(options.head_activation, HeadActivation::none, HeadActivation::tanh))
    refuse_model("unknown activation of a head");
  const bool pools = static_cast<Pooling>(options.pooling) != Pooling::none;
  const auto task = static_cast<Task>(options.task);
  if (task == Task::classification && !pools) refuse_model("labels of sequences need a pooling");
  if (task == Task::token_classification && pools) refuse_model("labels of tokens are not pooled");
}

}  // namespace

EncoderTensors::EncoderTensors(const CompiledFile& file) : ModelTensors(file), embedding_features_(0), features_(0) {
  check_options(file.encoder());
  embedding_features_ = entry(kNoLayer, Role::word_embeddings).columns;
  const auto projected = projection();
  features_ = projected ? projected->out_features : embedding_features_;
  if (features_ < 1) refuse_model("hidden states without features");
  distance_rows_ = read_distance_rows();
  if (max_tokens() < 1) refuse_model("no position for a token");
}

bool EncoderTensors::pre_norm() const {
  return file().encoder().block_order == static_cast<std::int32_t>(BlockOrder::pre_norm);
}

std::int64_t EncoderTensors::max_tokens() const {
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  if (has(kNoLayer, Role::position_embeddings)) {
    most = table(Role::position_embeddings).rows - file().encoder().first_position;
  }
  for (const Role role : {Role::rotary, Role::local_rotary}) {
    if (has(kNoLayer, role)) most = std::min(most, rotary(role).positions);
  }
  if (!distance_rows_.empty()) most = std::min(most, (static_cast<std::int64_t>(distance_rows_.size()) + 1) / 2);
  if (most == std::numeric_limits<std::int64_t>::max()) {
    refuse_model("neither position embeddings nor rotary ones nor rows for distances");
  }
  return most;
}

EmbeddingTable EncoderTensors::table(Role role) const { return ModelTensors::table(role, embedding_features_); }

EmbeddingTable EncoderTensors::optional_table(Role role) const {
  return ModelTensors::optional_table(role, embedding_features_);
}

RotaryTable EncoderTensors::rotary(Role role) const {
  const std::int64_t head_dim = file().encoder().head_dim;
  const RotaryTable found = ModelTensors::rotary(role, head_dim);
  if (found.positions > 0 && found.head_dim != head_dim) {
    refuse_model(tensor_name(kNoLayer, role) + " must have as many columns as a head has features");
  }
  return found;
}

std::optional<LinearWeights> EncoderTensors::projection() const {
  return optional_linear(Role::embedding_projection, Role::embedding_projection_bias, embedding_features_);
}

DistanceBiases EncoderTensors::distance_biases() const {
  const TensorEntry* found = file().find(kNoLayer, Role::distance_biases);
  if (found == nullptr) return {};
  if (found->kind != TensorKind::floats || found->columns % 2 == 0) {
    refuse_model(tensor_name(kNoLayer, Role::distance_biases) + " must be floats with an odd number of columns");
  }
  const DistanceBiases biases{floats(*found), found->rows, (found->columns + 1) / 2};
  if (biases.tokens < max_tokens()) {
    refuse_model(tensor_name(kNoLayer, Role::distance_biases) + " must reach as far as positions");
  }
  return biases;
}

std::optional<NormWeights> EncoderTensors::embedding_norm() const {
  if (has(kNoLayer, Role::projection_norm_weight) && !has(kNoLayer, Role::embedding_norm_weight)) return std::nullopt;
  return norm(kNoLayer, Role::embedding_norm_weight, Role::embedding_norm_bias, embedding_features_);
}

std::optional<NormWeights> EncoderTensors::projection_norm() const {
  if (!has(kNoLayer, Role::projection_norm_weight)) return std::nullopt;
  if (!has(kNoLayer, Role::embedding_projection))
    refuse_model("a norm of projected embeddings without their projection");
  return norm(kNoLayer, Role::projection_norm_weight, Role::projection_norm_bias, features_);
}

std::vector<std::int32_t> EncoderTensors::read_distance_rows() const {
  const TensorEntry* found = file().find(kNoLayer, Role::distance_rows);
  if (found == nullptr) return {};
  if (found->kind != TensorKind::floats || found->columns != 1 || found->rows % 2 == 0) {
    refuse_model(tensor_name(kNoLayer, Role::distance_rows) + " must be an odd number of floats");
  }
  const auto* numbers = floats(*found);
  const auto is_row = [](float number) { return number >= 0.0F && number <= kMaxRow && number == std::floor(number); };
  if (!std::all_of(numbers, numbers + found->rows, is_row)) {
    refuse_model(tensor_name(kNoLayer, Role::distance_rows) + " must be whole numbers from 0 to 2^24");
  }
  std::vector<std::int32_t> rows(static_cast<std::size_t>(found->rows));
  std::transform(numbers, numbers + found->rows, rows.begin(),
                 [](float number) { return static_cast<std::int32_t>(number); });
  return rows;
}

const float* EncoderTensors::position_table(std::uint32_t layer, Role role, std::int64_t features) const {
  const TensorEntry* found = file().find(layer, role);
  if (found == nullptr) return nullptr;
  if (found->kind != TensorKind::floats || found->columns != features) {
    refuse_model(tensor_name(layer, role) + " must be floats with as many columns as the layer has attention features");
  }
  if (distance_rows_.empty()) refuse_model(tensor_name(layer, role) + " without rows for distances");
  if (*std::ranges::max_element(distance_rows_) >= found->rows) {
    refuse_model(tensor_name(layer, role) + " must have a row for each distance");
  }
  return floats(*found);
}

Head EncoderTensors::head() const {
  Head head;
  head.features = features_;
  head.activation = static_cast<HeadActivation>(file().encoder().head_activation);
  head.dense = optional_linear(Role::head_dense, Role::head_dense_bias, features_);
  head.norm_eps = file().encoder().norm_eps;
  if (has(kNoLayer, Role::head_norm_weight)) {
    if (!head.dense) refuse_model("a norm of a head without its dense layer");
    head.norm = norm(kNoLayer, Role::head_norm_weight, Role::head_norm_bias, head.dense->out_features);
  }
  head.classifier = optional_linear(Role::classifier, Role::classifier_bias, head.outputs());
  const bool has_labels = static_cast<Task>(file().encoder().task) != Task::embedding;
  if (head.classifier.has_value() != has_labels) refuse_model("labels and a classifier belong together");
  if (head.outputs() < 1) refuse_model("a head without outputs");
  return head;
}

EncoderLayer EncoderTensors::layer(std::uint32_t index) const {
  EncoderLayer layer{};
  layer.query = linear(index, Role::query, Role::query_bias, kAnySize, features_);
  const std::int64_t attention = layer.query.out_features;
  if (attention % file().encoder().head_dim != 0)
    refuse_model("layer " + std::to_string(index) + " has a part of a head");
  const std::int64_t heads = attention / file().encoder().head_dim;
  if (has(kNoLayer, Role::distance_biases) && distance_biases().heads != heads) {
    refuse_model("layer " + std::to_string(index) + " has another number of heads than the biases by distance");
  }
  layer.key = linear(index, Role::key, Role::key_bias, attention, features_);
  layer.value = linear(index, Role::value, Role::value_bias, attention, features_);
  layer.attention_output = linear(index, Role::attention_output, Role::attention_output_bias, features_, attention);
  if (!pre_norm() || index > 0 || has(index, Role::attention_norm_weight)) {
    layer.attention_norm = norm(index, Role::attention_norm_weight, Role::attention_norm_bias, features_);
  }
  layer.up = linear(index, Role::up, Role::up_bias, kAnySize, features_);
  if (has(index, Role::gate)) {
    layer.gate = linear(index, Role::gate, Role::gate_bias, layer.up.out_features, features_);
  }
  layer.down = linear(index, Role::down, Role::down_bias, features_, layer.up.out_features);
  layer.output_norm = norm(index, Role::output_norm_weight, Role::output_norm_bias, features_);
  layer.window = window(index, file().encoder().layers);
  const bool local = layer.window > 0 && has(kNoLayer, Role::local_rotary);
  layer.rotary = rotary(local ? Role::local_rotary : Role::rotary);
  layer.position_key = position_table(index, Role::position_key, attention);
  layer.position_query = position_table(index, Role::position_query, attention);
  return layer;
}

}  // namespace sparsekit
