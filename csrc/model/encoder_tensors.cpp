#include "encoder_tensors.h"

#include <cmath>
#include <stdexcept>

namespace sparsekit {
namespace {

/// A size that any will do for.
constexpr std::int64_t kAny = -1;

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
  if (!between(options.task, Task::embedding, Task::token_classification)) refuse("unknown task");
  if (!between(options.head_activation, HeadActivation::none, HeadActivation::tanh))
    refuse("unknown activation of a head");
  const bool pools = static_cast<Pooling>(options.pooling) != Pooling::none;
  const auto task = static_cast<Task>(options.task);
  if (task == Task::classification && !pools) refuse("labels of sequences need a pooling");
  if (task == Task::token_classification && pools) refuse("labels of tokens are not pooled");
}

}  // namespace

EncoderTensors::EncoderTensors(const CompiledFile& file) : file_(file), features_(0) {
  check_options(file.encoder());
  features_ = entry(kNoLayer, Role::word_embeddings).columns;
  if (table(Role::position_embeddings).rows <= file.encoder().first_position) refuse("no position for a token");
}

const TensorEntry& EncoderTensors::entry(std::uint32_t layer, Role role) const {
  const TensorEntry* found = file_.find(layer, role);
  if (found == nullptr) refuse(name_of(layer, role) + " is missing");
  return *found;
}

EmbeddingTable EncoderTensors::table(Role role) const {
  const TensorEntry& found = entry(kNoLayer, role);
  if (found.columns != features_)
    refuse(name_of(kNoLayer, role) + " must have " + std::to_string(features_) + " columns");
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
  return file_.find(kNoLayer, role) == nullptr ? EmbeddingTable{} : table(role);
}

const float* EncoderTensors::vector(std::uint32_t layer, Role role, std::int64_t size) const {
  const TensorEntry& found = entry(layer, role);
  if (found.kind != TensorKind::floats || found.rows != size || found.columns != 1) {
    refuse(name_of(layer, role) + " must have " + std::to_string(size) + " floats");
  }
  return reinterpret_cast<const float*>(file_.data(found));
}

NormWeights EncoderTensors::norm(std::uint32_t layer, Role weight, Role bias) const {
  return {vector(layer, weight, features_), vector(layer, bias, features_)};
}

LinearWeights EncoderTensors::linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                                     std::int64_t in_features) const {
  const TensorEntry& found = entry(layer, weight);
  if (found.kind != TensorKind::packed) refuse(name_of(layer, weight) + " must be a packed weight");
  if (found.columns != in_features || (out_features != kAny && found.rows != out_features)) {
    refuse(name_of(layer, weight) + " has a shape that does not fit the tensors around it");
  }
  const float* offsets = file_.find(layer, bias) == nullptr ? nullptr : vector(layer, bias, found.rows);
  return {file_.data(found), found.bytes, found.rows, found.columns, offsets};
}

std::optional<LinearWeights> EncoderTensors::optional_linear(Role weight, Role bias, std::int64_t in_features) const {
  if (file_.find(kNoLayer, weight) == nullptr) return std::nullopt;
  return linear(kNoLayer, weight, bias, kAny, in_features);
}

Head EncoderTensors::head() const {
  Head head;
  head.features = features_;
  head.activation = static_cast<HeadActivation>(file_.encoder().head_activation);
  head.dense = optional_linear(Role::head_dense, Role::head_dense_bias, features_);
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
  layer.key = linear(index, Role::key, Role::key_bias, attention, features_);
  layer.value = linear(index, Role::value, Role::value_bias, attention, features_);
  layer.attention_output = linear(index, Role::attention_output, Role::attention_output_bias, features_, attention);
  layer.attention_norm = norm(index, Role::attention_norm_weight, Role::attention_norm_bias);
  layer.up = linear(index, Role::up, Role::up_bias, kAny, features_);
  layer.down = linear(index, Role::down, Role::down_bias, features_, layer.up.out_features);
  layer.output_norm = norm(index, Role::output_norm_weight, Role::output_norm_bias);
  return layer;
}

}  // namespace sparsekit
