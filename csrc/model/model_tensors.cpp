#include "model_tensors.h"

#include <cmath>
#include <stdexcept>

namespace sparsekit {
namespace {

/// Of the tokens that a layer sees on either side of one.
constexpr float kMaxWindow = 1 << 24;

}  // namespace

void refuse_model(const std::string& what) {
  throw std::invalid_argument("the compiled model does not fit together: " + what +
                              "; compile it again with compile_model()");
}

std::string tensor_name(std::uint32_t layer, Role role) {
  return "tensor " + std::to_string(static_cast<std::uint32_t>(role)) +
         (layer == kNoLayer ? "" : " of layer " + std::to_string(layer));
}

const TensorEntry& ModelTensors::entry(std::uint32_t layer, Role role) const {
  const TensorEntry* found = file_.find(layer, role);
  if (found == nullptr) refuse_model(tensor_name(layer, role) + " is missing");
  return *found;
}

EmbeddingTable ModelTensors::table(Role role, std::int64_t features) const {
  const TensorEntry& found = entry(kNoLayer, role);
  if (found.columns != features)
    refuse_model(tensor_name(kNoLayer, role) + " must have " + std::to_string(features) + " columns");
  if (found.rows < 1) refuse_model(tensor_name(kNoLayer, role) + " has no rows");
  EmbeddingTable table;
  table.rows = found.rows;
  table.features = found.columns;
  if (found.kind == TensorKind::floats) {
    table.floats = floats(found);
  } else if (found.kind == TensorKind::scaled_rows) {
    table.scales = floats(found);
    table.bytes = reinterpret_cast<const std::int8_t*>(table.scales + found.rows);
  } else {
    refuse_model(tensor_name(kNoLayer, role) + " must be a table");
  }
  return table;
}

EmbeddingTable ModelTensors::optional_table(Role role, std::int64_t features) const {
  return has(kNoLayer, role) ? table(role, features) : EmbeddingTable{};
}

const float* ModelTensors::vector(std::uint32_t layer, Role role, std::int64_t size) const {
  const TensorEntry& found = entry(layer, role);
  if (found.kind != TensorKind::floats || found.rows != size || found.columns != 1) {
    refuse_model(tensor_name(layer, role) + " must have " + std::to_string(size) + " floats");
  }
  return floats(found);
}

NormWeights ModelTensors::norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const {
  return {vector(layer, weight, features), has(layer, bias) ? vector(layer, bias, features) : nullptr};
}

LinearWeights ModelTensors::linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                                   std::int64_t in_features) const {
  const TensorEntry& found = entry(layer, weight);
  if (found.kind != TensorKind::packed) refuse_model(tensor_name(layer, weight) + " must be a packed weight");
  if (found.columns != in_features || (out_features != kAnySize && found.rows != out_features)) {
    refuse_model(tensor_name(layer, weight) + " has a shape that does not fit the tensors around it");
  }
  const float* offsets = has(layer, bias) ? vector(layer, bias, found.rows) : nullptr;
  return {file_.data(found), found.bytes, found.rows, found.columns, offsets};
}

std::optional<LinearWeights> ModelTensors::optional_linear(Role weight, Role bias, std::int64_t in_features) const {
  if (!has(kNoLayer, weight)) return std::nullopt;
  return linear(kNoLayer, weight, bias, kAnySize, in_features);
}

RotaryTable ModelTensors::rotary(Role role, std::int64_t head_dim) const {
  const TensorEntry* found = file_.find(kNoLayer, role);
  if (found == nullptr) return {};
  if (found->kind != TensorKind::floats || found->columns > head_dim || found->columns % 2 != 0) {
    refuse_model(tensor_name(kNoLayer, role) + " must be floats with an even number of columns, no more than a head " +
                 "has features");
  }
  return {floats(*found), found->rows, found->columns};
}

std::int64_t ModelTensors::window(std::uint32_t layer, std::int32_t layers) const {
  if (!has(kNoLayer, Role::windows)) return 0;
  const float window = vector(kNoLayer, Role::windows, layers)[layer];
  if (!(window >= 0.0F && window <= kMaxWindow) || window != std::floor(window)) {
    refuse_model("the window of layer " + std::to_string(layer) + " must be a whole number from 0 to 2^24");
  }
  return static_cast<std::int64_t>(window);
}

}  // namespace sparsekit
