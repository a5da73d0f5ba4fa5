// The tensors of an encoder in a compiled model, with their shapes checked against each other.
#pragma once

#include <optional>

#include "encoder.h"

namespace sparsekit {

/// Every function throws std::invalid_argument where a tensor is missing, stored in another way, or of another shape.
class EncoderTensors {
 public:
  /// Checks the options.
  explicit EncoderTensors(const CompiledFile& file);

  EmbeddingTable table(Role role) const;
  EmbeddingTable optional_table(Role role) const;
  NormWeights norm(std::uint32_t layer, Role weight, Role bias) const;
  EncoderLayer layer(std::uint32_t index) const;
  Head head() const;

 private:
  const TensorEntry& entry(std::uint32_t layer, Role role) const;
  const float* vector(std::uint32_t layer, Role role, std::int64_t size) const;
  LinearWeights linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                       std::int64_t in_features) const;
  std::optional<LinearWeights> optional_linear(Role weight, Role bias, std::int64_t in_features) const;

  const CompiledFile& file_;
  std::int64_t features_;
};

}  // namespace sparsekit
