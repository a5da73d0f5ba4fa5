// The tensors of a decoder in a compiled model, with their shapes checked against each other.
#pragma once

#include "decoder_layer.h"
#include "model_tensors.h"

namespace sparsekit {

/// As `ModelTensors`.
class DecoderTensors : ModelTensors {
 public:
  /// Checks the options.
  explicit DecoderTensors(const CompiledFile& file);

  std::int64_t features() const { return features_; }
  /// A table, or a weight in a dense layout, which may be the head's too.
  EmbeddingTable words() const;
  EmbeddingTable positions() const { return optional_table(Role::position_embeddings, features_); }
  NormWeights final_norm() const { return norm(kNoLayer, Role::final_norm_weight, Role::final_norm_bias, features_); }
  /// The word embeddings where the file has no other.
  LinearWeights head() const;
  DecoderLayer layer(std::uint32_t index) const;
  /// Longest sequence, in tokens, with positions.
  std::int64_t max_tokens() const;

 private:
  const DecoderOptions& options() const { return file().decoder(); }
  NormWeights optional_norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const;
  NormWeights optional_norm(std::uint32_t layer, Role weight, std::int64_t features) const;
  bool normalizes_heads(std::uint32_t layer) const;
  RotaryTable layer_rotary(std::uint32_t layer) const;

  std::int64_t features_;  // of a hidden state
};

}  // namespace sparsekit
