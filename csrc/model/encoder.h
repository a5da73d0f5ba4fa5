// A transformer encoder (BERT and similar models) over a compiled model.
//
//   x = norm(word + position + type embeddings), projected where embeddings have another width than hidden states; the
//   norm may be behind the projection
//   x = layer(x) for each layer, see encoder_layer.h
//   x = norm(x), where there are norms before the halves of a layer
//
// Tokens of all sequences lie one after the other, without padding: linear layers see one batch, attention one sequence
// at a time. Sequences go through all layers in groups, in one workspace that is kept for the next call: nothing is
// allocated between layers.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "../operators/embedding.h"
#include "../operators/pooling.h"
#include "compiled_file.h"
#include "encoder_layer.h"
#include "head.h"
#include "weights.h"
#include "workspace.h"

namespace sparsekit {

/// Tokens of a call: ids in the vocabulary, and token types or null for 0.
struct EncoderInput {
  const std::int32_t* ids;
  const std::int32_t* types;
  Sequences sequences;
  const std::function<void()>* between_layers = nullptr;  // if it throws, the call ends
};

/// Threads may share it; calls do not change it.
class Encoder {
 public:
  /// The buffer of `file` must outlive it. Throws std::invalid_argument where a tensor is missing or has a shape that
  /// does not fit the others, and for unknown options.
  explicit Encoder(const CompiledFile& file);

  std::int64_t features() const { return projection_ ? projection_->out_features : words_.features; }
  std::int64_t vocabulary() const { return words_.rows; }
  std::int64_t max_tokens() const { return max_tokens_; }
  /// Rows of the table of token types; 0 where the model has none.
  std::int64_t types() const { return types_.rows; }
  Task task() const { return static_cast<Task>(options_.task); }
  /// Size of the outputs of `encode`; 0 if the model only has hidden states.
  std::int64_t outputs() const { return encodes() ? head_.outputs() : 0; }

  /// Hidden states of the last layer: output[tokens, features]. Throws std::invalid_argument for ids, types or offsets
  /// that the model does not have.
  void run(const EncoderInput& input, float* output) const;

  /// One vector or the logits of each sequence, output[sequences, outputs], or the logits of each token,
  /// output[tokens, outputs]. Throws as above, and where the model gives hidden states alone.
  void encode(const EncoderInput& input, float* output) const;

 private:
  Pooling pooling() const { return static_cast<Pooling>(options_.pooling); }
  bool encodes() const { return pooling() != Pooling::none || task() == Task::token_classification; }
  void check(const EncoderInput& input) const;
  bool reads_first_tokens() const { return pooling() == Pooling::cls && !layers_.empty(); }
  void run_groups(const EncoderInput& input, bool first_tokens, float* output) const;
  void run_group(const EncoderInput& input, bool first_tokens, float* output) const;
  void embed(const EncoderInput& input, float* output, float* space) const;
  void run_layers(const EncoderInput& input, bool first_tokens, float* x, const EncoderSpace& space) const;
  bool pre_norm() const { return options_.block_order == static_cast<std::int32_t>(BlockOrder::pre_norm); }

  EncoderOptions options_;
  EmbeddingTable words_;
  EmbeddingTable positions_;  // without rows where the model has none, as the next one
  EmbeddingTable types_;
  std::optional<NormWeights> embedding_norm_;
  std::optional<LinearWeights> projection_;  // of embeddings to hidden states
  std::optional<NormWeights> projection_norm_;
  DistanceBiases biases_;                    // of all layers
  std::vector<std::int32_t> distance_rows_;  // of the layers' tables
  std::vector<EncoderLayer> layers_;
  NormWeights final_norm_;  // with norms before the halves of a layer
  Head head_;
  std::int64_t max_tokens_ = 0;
  std::int64_t space_ = 0;  // floats of a token besides its hidden state
  mutable WorkspacePool workspaces_;
};

}  // namespace sparsekit
