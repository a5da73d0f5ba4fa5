// The tensors of an encoder in a compiled model, with their shapes checked against each other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "encoder.h"
#include "model_tensors.h"

namespace sparsekit {

/// As `ModelTensors`.
class EncoderTensors : ModelTensors {
 public:
  /// Checks the options.
  explicit EncoderTensors(const CompiledFile& file);

  EmbeddingTable table(Role role) const;
  EmbeddingTable optional_table(Role role) const;
  using ModelTensors::norm;
  std::optional<LinearWeights> projection() const;
  /// Without rows where the file has none.
  DistanceBiases distance_biases() const;
  /// A row of the layers' tables for each distance; empty where the file has none.
  const std::vector<std::int32_t>& distance_rows() const { return distance_rows_; }
  /// Behind embeddings; there unless `projection_norm` is.
  std::optional<NormWeights> embedding_norm() const;
  /// Behind projected embeddings.
  std::optional<NormWeights> projection_norm() const;
  EncoderLayer layer(std::uint32_t index) const;
  /// Longest sequence, in tokens, with positions.
  std::int64_t max_tokens() const;
  Head head() const;

 private:
  /// Without rows where the file has none.
  RotaryTable rotary(Role role) const;
  std::vector<std::int32_t> read_distance_rows() const;
  /// Null where the layer has none.
  const float* position_table(std::uint32_t layer, Role role, std::int64_t features) const;
  bool pre_norm() const;

  std::int64_t embedding_features_;
  std::int64_t features_;  // of a hidden state
  std::vector<std::int32_t> distance_rows_;
};

}  // namespace sparsekit
