// A transformer decoder (Llama and similar models) over a compiled model.
//
//   x = word embeddings * scale + position embeddings, where there are any
//   x = layer(x) for each layer, see decoder_layer.h
//   logits = head(norm(x)), of the last token of each sequence or of all
//
// Sequences go on from their caches. Their new tokens lie one after the other, without padding: linear layers see one
// batch, attention each sequence by itself. A long sequence is cut into pieces that go through all layers one after the
// other. Where logits are of last tokens, the last layer computes of the others only the keys and values.
#pragma once

#include <functional>
#include <vector>

#include "../operators/embedding.h"
#include "compiled_file.h"
#include "decoder_layer.h"
#include "key_value_cache.h"
#include "weights.h"
#include "workspace.h"

namespace sparsekit {

/// New tokens of sequences: each has at least one, and a cache of its own, made for the model's `cache_shape`.
struct DecoderInput {
  const std::int32_t* ids;
  Sequences sequences;
  KeyValueCache* const* caches;                           // [sequences]
  const std::function<void()>* between_layers = nullptr;  // if it throws, the call ends
};

/// Tokens to compute logits for.
enum class LogitsOf { last, all };

/// Threads may share it; calls only change caches.
class Decoder {
 public:
  /// The buffer of `file` must outlive it. Throws std::invalid_argument where a tensor is missing or has a shape that
  /// does not fit the others, and for unknown options.
  explicit Decoder(const CompiledFile& file);

  std::int64_t vocabulary() const { return words_.rows; }
  std::int64_t max_tokens() const { return max_tokens_; }
  const CacheShape& cache_shape() const { return cache_shape_; }

  /// Computes the logits of the last token of each sequence, [sequences, vocabulary], or of each token,
  /// [tokens, vocabulary]. Caches hold the tokens afterwards; where the call throws they hold those of whole pieces
  /// that were computed before. Throws std::invalid_argument for ids that the model does not have, for tokens that a
  /// cache has no room for, and for caches of another shape.
  void run(const DecoderInput& input, LogitsOf which, float* logits) const;

 private:
  struct Group;

  void check(const DecoderInput& input) const;
  void run_group(const DecoderInput& input, const Group& group, LogitsOf which, float* logits) const;
  void embed(const std::int32_t* ids, const Sequences& sequences, const std::int64_t* first_positions, float* x,
             float* space) const;
  std::int64_t ended(const DecoderInput& input, const Group& group) const;
  void write_logits(float* x, const float* added, std::int64_t rows, float* logits) const;

  DecoderOptions options_;
  std::int64_t features_;
  EmbeddingTable words_;
  EmbeddingTable positions_;  // without rows where the model has none
  std::vector<DecoderLayer> layers_;
  NormWeights final_norm_;
  LinearWeights head_;
  std::int64_t max_tokens_;
  CacheShape cache_shape_;
  std::int64_t space_ = 0;  // floats of a token
  mutable WorkspacePool workspaces_;
};

}  // namespace sparsekit
