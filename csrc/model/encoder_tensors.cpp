#include "encoder_tensors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace sparsekit {
namespace {

/// A size that any will do for.
constexpr std::int64_t kAny = -1;
/// Of the tokens that a layer sees on either side of one.
constexpr float kMaxWindow = 1 << 24;
/// Whole numbers up to here are exact as floats.
constexpr float kMaxRow = 1 << 24;

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("the compiled model does not fit together: " + what +
                              "; compile it again with compile_model()");
}

std::string name_of(std::uint32_t layer, Role role) {
  return "tensor " + std::to_string(static_cast<std::uint32_t>(role)) +
         (layer == kNoLayer ? "" : " of layer " + std::to_string(layer));
}

void check_options(const EncoderOptions& options) {
  if (options.layers < 0 || options.head_dim < 1 || options.first_position < 0) refuse("sizes must not be negative");
  if (!(options.norm_eps > 0.0F) || !std::isfinite(options.norm_eps) || !std::isfinite(options.attention_scale)) {
    refuse("its numbers must be finite");
  }
  const auto between = [](std::int32_t value, auto first, auto last) {
    return value >= static_cast<std::int32_t>(first) && value <= static_cast<std::int32_t>(last);
  };
  if (!between(options.activation, Activation::none, Activation::silu)) refuse("unknown activation function");
  if (!between(options.pooling, Pooling::none, Pooling::max)) refuse("unknown pooling");
  if (!between(options.normalize, 0, 1)) refuse("normalize must be 0 or 1");
  if (!between(options.block_order, BlockOrder::post_norm, BlockOrder::pre_norm)) refuse("unknown order of blocks");
  if (!between(options.task, Task::embedding, Task::token_classification)) refuse("unknown task");
  if (!between(options.head_activation, HeadActivation::none, HeadActivation::tanh))
    refuse("unknown activation of a head");
  const bool pools = static_cast<Pooling>(options.pooling) != Pooling::none;
  const auto task = static_cast<Task>(options.task);
  if (task == Task::classification && !pools) refuse("labels of sequences need a pooling");
  if (task == Task::token_classification && pools) refuse("labels of tokens are not pooled");
}

}  // namespace

EncoderTensors::EncoderTensors(const CompiledFile& file) : file_(file), embedding_features_(0), features_(0) {
  check_options(file.encoder());
  embedding_features_ = entry(kNoLayer, Role::word_embeddings).columns;
  const auto projected = projection();
  features_ = projected ? projected->out_features : embedding_features_;
  if (features_ < 1) refuse("hidden states without features");
  distance_rows_ = read_distance_rows();
  if (max_tokens() < 1) refuse("no position for a token");
}

bool EncoderTensors::pre_norm() const {
  return file_.encoder().block_order == static_cast<std::int32_t>(BlockOrder::pre_norm);
}

std::int64_t EncoderTensors::max_tokens() const {
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  if (has(kNoLayer, Role::position_embeddings)) {
    most = table(Role::position_embeddings).rows - file_.encoder().first_position;
  }
  for (const Role role : {Role::rotary, Role::local_rotary}) {
    if (has(kNoLayer, role)) most = std::min(most, rotary(role).positions);
  }
  if (!distance_rows_.empty()) most = std::min(most, (static_cast<std::int64_t>(distance_rows_.size()) + 1) / 2);
  if (most == std::numeric_limits<std::int64_t>::max()) {
    refuse("neither position embeddings nor rotary ones nor rows for distances");
  }
  return most;
}

const TensorEntry& EncoderTensors::entry(std::uint32_t layer, Role role) const {
  const TensorEntry* found = file_.find(layer, role);
  if (found == nullptr) refuse(name_of(layer, role) + " is missing");
  return *found;
}

EmbeddingTable EncoderTensors::table(Role role) const {
  const TensorEntry& found = entry(kNoLayer, role);
  if (found.columns != embedding_features_)
    refuse(name_of(kNoLayer, role) + " must have " + std::to_string(embedding_features_) + " columns");
  if (found.rows < 1) refuse(name_of(kNoLayer, role) + " has no rows");
  EmbeddingTable table;
  table.rows = found.rows;
  table.features = found.columns;
  const auto* floats = reinterpret_cast<const float*>(file_.data(found));
  if (found.kind == TensorKind::floats) {
    table.floats = floats;
  } else if (found.kind == TensorKind::scaled_rows) {
    table.scales = floats;
    table.bytes = reinterpret_cast<const std::int8_t*>(floats + found.rows);
  } else {
    refuse(name_of(kNoLayer, role) + " must be a table");
  }
  return table;
}

EmbeddingTable EncoderTensors::optional_table(Role role) const {
  return has(kNoLayer, role) ? table(role) : EmbeddingTable{};
}

const float* EncoderTensors::vector(std::uint32_t layer, Role role, std::int64_t size) const {
  const TensorEntry& found = entry(layer, role);
  if (found.kind != TensorKind::floats || found.rows != size || found.columns != 1) {
    refuse(name_of(layer, role) + " must have " + std::to_string(size) + " floats");
  }
  return reinterpret_cast<const float*>(file_.data(found));
}

NormWeights EncoderTensors::norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const {
  return {vector(layer, weight, features), has(layer, bias) ? vector(layer, bias, features) : nullptr};
}

LinearWeights EncoderTensors::linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                                     std::int64_t in_features) const {
  const TensorEntry& found = entry(layer, weight);
  if (found.kind != TensorKind::packed) refuse(name_of(layer, weight) + " must be a packed weight");
  if (found.columns != in_features || (out_features != kAny && found.rows != out_features)) {
    refuse(name_of(layer, weight) + " has a shape that does not fit the tensors around it");
  }
  const float* offsets = has(layer, bias) ? vector(layer, bias, found.rows) : nullptr;
  return {file_.data(found), found.bytes, found.rows, found.columns, offsets};
}

std::optional<LinearWeights> EncoderTensors::projection() const {
  return optional_linear(Role::embedding_projection, Role::embedding_projection_bias, embedding_features_);
}

DistanceBiases EncoderTensors::distance_biases() const {
  const TensorEntry* found = file_.find(kNoLayer, Role::distance_biases);
  if (found == nullptr) return {};
  if (found->kind != TensorKind::floats || found->columns % 2 == 0) {
    refuse(name_of(kNoLayer, Role::distance_biases) + " must be floats with an odd number of columns");
  }
  const DistanceBiases biases{reinterpret_cast<const float*>(file_.data(*found)), found->rows,
                              (found->columns + 1) / 2};
  if (biases.tokens < max_tokens()) {
    refuse(name_of(kNoLayer, Role::distance_biases) + " must reach as far as positions");
  }
  return biases;
}

std::optional<NormWeights> EncoderTensors::embedding_norm() const {
  if (has(kNoLayer, Role::projection_norm_weight) && !has(kNoLayer, Role::embedding_norm_weight)) return std::nullopt;
  return norm(kNoLayer, Role::embedding_norm_weight, Role::embedding_norm_bias, embedding_features_);
}

std::optional<NormWeights> EncoderTensors::projection_norm() const {
  if (!has(kNoLayer, Role::projection_norm_weight)) return std::nullopt;
  if (!has(kNoLayer, Role::embedding_projection)) refuse("a norm of projected embeddings without their projection");
  return norm(kNoLayer, Role::projection_norm_weight, Role::projection_norm_bias, features_);
}

std::vector<std::int32_t> EncoderTensors::read_distance_rows() const {
  const TensorEntry* found = file_.find(kNoLayer, Role::distance_rows);
  if (found == nullptr) return {};
  if (found->kind != TensorKind::floats || found->columns != 1 || found->rows % 2 == 0) {
    refuse(name_of(kNoLayer, Role::distance_rows) + " must be an odd number of floats");
  }
  const auto* numbers = reinterpret_cast<const float*>(file_.data(*found));
  const auto is_row = [](float number) { return number >= 0.0F && number <= kMaxRow && number == std::floor(number); };
  if (!std::all_of(numbers, numbers + found->rows, is_row)) {
    refuse(name_of(kNoLayer, Role::distance_rows) + " must be whole numbers from 0 to 2^24");
  }
  std::vector<std::int32_t> rows(static_cast<std::size_t>(found->rows));
  std::transform(numbers, numbers + found->rows, rows.begin(),
                 [](float number) { return static_cast<std::int32_t>(number); });
  return rows;
}

const float* EncoderTensors::position_table(std::uint32_t layer, Role role, std::int64_t features) const {
  const TensorEntry* found = file_.find(layer, role);
  if (found == nullptr) return nullptr;
  if (found->kind != TensorKind::floats || found->columns != features) {
    refuse(name_of(layer, role) + " must be floats with as many columns as the layer has attention features");
  }
  if (distance_rows_.empty()) refuse(name_of(layer, role) + " without rows for distances");
  if (*std::ranges::max_element(distance_rows_) >= found->rows) {
    refuse(name_of(layer, role) + " must have a row for each distance");
  }
  return reinterpret_cast<const float*>(file_.data(*found));
}

RotaryTable EncoderTensors::rotary(Role role) const {
  const TensorEntry* found = file_.find(kNoLayer, role);
  if (found == nullptr) return {};
  const std::int64_t head_dim = file_.encoder().head_dim;
  if (found->kind != TensorKind::floats || found->columns != head_dim || head_dim % 2 != 0) {
    refuse(name_of(kNoLayer, role) + " must be floats with as many columns as a head has features, an even number");
  }
  return {reinterpret_cast<const float*>(file_.data(*found)), found->rows, head_dim};
}

std::int64_t EncoderTensors::window(std::uint32_t layer) const {
  if (!has(kNoLayer, Role::windows)) return 0;
  const float window = vector(kNoLayer, Role::windows, file_.encoder().layers)[layer];
  if (!(window >= 0.0F && window <= kMaxWindow) || window != std::floor(window)) {
    refuse("the window of layer " + std::to_string(layer) + " must be a whole number from 0 to 2^24");
  }
  return static_cast<std::int64_t>(window);
}

std::optional<LinearWeights> EncoderTensors::optional_linear(Role weight, Role bias, std::int64_t in_features) const {
  if (!has(kNoLayer, weight)) return std::nullopt;
  return linear(kNoLayer, weight, bias, kAny, in_features);
}

Head EncoderTensors::head() const {
  Head head;
  head.features = features_;
  head.activation = static_cast<HeadActivation>(file_.encoder().head_activation);
  head.dense = optional_linear(Role::head_dense, Role::head_dense_bias, features_);
  head.norm_eps = file_.encoder().norm_eps;
  if (has(kNoLayer, Role::head_norm_weight)) {
    if (!head.dense) refuse("a norm of a head without its dense layer");
    head.norm = norm(kNoLayer, Role::head_norm_weight, Role::head_norm_bias, head.dense->out_features);
  }
  head.classifier = optional_linear(Role::classifier, Role::classifier_bias, head.outputs());
  const bool has_labels = static_cast<Task>(file_.encoder().task) != Task::embedding;
  if (head.classifier.has_value() != has_labels) refuse("labels and a classifier belong together");
  if (head.outputs() < 1) refuse("a head without outputs");
  return head;
}

EncoderLayer EncoderTensors::layer(std::uint32_t index) const {
  EncoderLayer layer{};
  layer.query = linear(index, Role::query, Role::query_bias, kAny, features_);
  const std::int64_t attention = layer.query.out_features;
  if (attention % file_.encoder().head_dim != 0) refuse("layer " + std::to_string(index) + " has a part of a head");
  const std::int64_t heads = attention / file_.encoder().head_dim;
  if (has(kNoLayer, Role::distance_biases) && distance_biases().heads != heads) {
    refuse("layer " + std::to_string(index) + " has another number of heads than the biases by distance");
  }
  layer.key = linear(index, Role::key, Role::key_bias, attention, features_);
  layer.value = linear(index, Role::value, Role::value_bias, attention, features_);
  layer.attention_output = linear(index, Role::attention_output, Role::attention_output_bias, features_, attention);
  if (!pre_norm() || index > 0 || has(index, Role::attention_norm_weight)) {
    layer.attention_norm = norm(index, Role::attention_norm_weight, Role::attention_norm_bias, features_);
  }
  layer.up = linear(index, Role::up, Role::up_bias, kAny, features_);
  if (has(index, Role::gate)) {
    layer.gate = linear(index, Role::gate, Role::gate_bias, layer.up.out_features, features_);
  }
  layer.down = linear(index, Role::down, Role::down_bias, features_, layer.up.out_features);
  layer.output_norm = norm(index, Role::output_norm_weight, Role::output_norm_bias, features_);
  layer.window = window(index);
  const bool local = layer.window > 0 && has(kNoLayer, Role::local_rotary);
  layer.rotary = rotary(local ? Role::local_rotary : Role::rotary);
  layer.position_key = position_table(index, Role::position_key, attention);
  layer.position_query = position_table(index, Role::position_query, attention);
  return layer;
}

}  // namespace sparsekit
