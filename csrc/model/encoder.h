// A transformer encoder with post-layer-norm blocks (BERT and its like) over a compiled model.
//
//   x = norm(word + position + type embeddings)
//   for each layer       x = norm(x + output(attention(query(x), key(x), value(x))))
//                        x = norm(x + down(activation(up(x))))
//
// Tokens of all sequences lie one after the other, without padding: linear layers see one batch, attention one sequence
// at a time. Sequences go through all layers in groups, in one workspace that is kept for the next call: nothing is
// allocated between layers.
#pragma once

#include <vector>

#include "../operators/embedding.h"
#include "../operators/pooling.h"
#include "../operators/sequence_attention.h"
#include "compiled_file.h"
#include "head.h"
#include "weights.h"
#include "workspace.h"

namespace sparsekit {

struct EncoderLayer {
  LinearWeights query;
  LinearWeights key;
  LinearWeights value;
  LinearWeights attention_output;
  NormWeights attention_norm;
  LinearWeights up;
  LinearWeights down;
  NormWeights output_norm;
};

/// Tokens of a call: ids in the vocabulary, and token types or null for 0.
struct EncoderInput {
  const std::int32_t* ids;
  const std::int32_t* types;
  Sequences sequences;
};

/// Where a call of an encoder keeps what.
struct EncoderSpace {
  float* sums;   // [tokens, features]: what is added to the residual
  float* query;  // [tokens, query features], as the next ones
  float* key;
  float* value;
  float* context;  // what attention gives
  float* hidden;   // [tokens, features of `up`], in the place of `query` and those behind it
};

/// Threads may share one; calls do not change it.
class Encoder {
 public:
  /// The buffer of `file` must stay. Throws std::invalid_argument where a tensor is missing or has a shape that does
  /// not fit the others, and for unknown options.
  explicit Encoder(const CompiledFile& file);

  std::int64_t features() const { return words_.features; }
  std::int64_t vocabulary() const { return words_.rows; }
  std::int64_t max_tokens() const { return positions_.rows - options_.first_position; }
  /// Rows of the table of token types; 0 where the model has none.
  std::int64_t types() const { return types_.rows; }
  Task task() const { return static_cast<Task>(options_.task); }
  /// Features of what `encode` gives; 0 where the model gives hidden states alone.
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
  void run_group(const EncoderInput& input, float* output) const;
  void embed(const EncoderInput& input, float* output, float* others) const;
  void run_layer(const EncoderLayer& layer, const Sequences& sequences, float* x, const EncoderSpace& space) const;
  SequenceAttentionCall attention_call(const EncoderLayer& layer, const Sequences& sequences,
                                       const EncoderSpace& space) const;

  EncoderOptions options_;
  EmbeddingTable words_;
  EmbeddingTable positions_;
  EmbeddingTable types_;  // without rows where the model has none
  NormWeights embedding_norm_;
  std::vector<EncoderLayer> layers_;
  Head head_;
  std::int64_t widest_ = 0;  // floats of a token between norms
  mutable WorkspacePool workspaces_;
};

}  // namespace sparsekit
