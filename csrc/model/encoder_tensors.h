// The tensors of an encoder in a compiled model, with their shapes checked against each other.
#pragma once

#include <optional>
#include <string>

#include "encoder.h"

namespace sparsekit {

/// Every function throws std::invalid_argument where a tensor is missing, stored in another way, or of another shape.
class EncoderTensors {
 public:
  /// Checks the options.
  explicit EncoderTensors(const CompiledFile& file);

  EmbeddingTable table(Role role) const;
  EmbeddingTable optional_table(Role role) const;
  NormWeights norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const;
  std::optional<LinearWeights> projection() const;
  /// Without rows where the file has none.
  DistanceBiases distance_biases() const;
  EncoderLayer layer(std::uint32_t index) const;
  /// Tokens of the longest sequence that there are positions for.
  std::int64_t max_tokens() const;
  Head head() const;

 private:
  const TensorEntry& entry(std::uint32_t layer, Role role) const;
  const float* vector(std::uint32_t layer, Role role, std::int64_t size) const;
  LinearWeights linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                       std::int64_t in_features) const;
  /// Without rows where the file has none.
  RotaryTable rotary(Role role) const;
  std::int64_t window(std::uint32_t layer) const;
  bool has(std::uint32_t layer, Role role) const { return file_.find(layer, role) != nullptr; }
  bool pre_norm() const;
  std::optional<LinearWeights> optional_linear(Role weight, Role bias, std::int64_t in_features) const;

  const CompiledFile& file_;
  std::int64_t embedding_features_;
  std::int64_t features_;  // of a hidden state
};

}  // namespace sparsekit
