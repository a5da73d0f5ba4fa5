// A transformer block of an encoder.
//
//   after each half (BERT)           x = norm(x + output(attention(query(x), key(x), value(x))))
//                                    x = norm(x + down(activation(up(x)) [* gate(x)]))
//   before each half (ModernBERT)    x = x + output(attention(query(norm(x)), ...))
//                                    x = x + down(activation(up(norm(x))) [* gate(norm(x))])
//
// Queries and keys may be turned by their positions, attention may have biases and tables by distance and a window.
// What lies between two operators is in one workspace: nothing is allocated.
#pragma once

#include <optional>
#include <span>

#include "../operators/first_tokens.h"
#include "../operators/rotary.h"
#include "../operators/sequence_attention.h"
#include "compiled_file.h"
#include "weights.h"

namespace sparsekit {

struct EncoderLayer {
  LinearWeights query;
  LinearWeights key;
  LinearWeights value;
  LinearWeights attention_output;
  NormWeights attention_norm;  // without a weight where a first layer has none before it
  LinearWeights up;
  std::optional<LinearWeights> gate;
  LinearWeights down;
  NormWeights output_norm;
  std::int64_t window;  // tokens on either side that a token sees; 0 for all
  RotaryTable rotary;
  const float* position_key;    // [rows, attention features], of disentangled attention; or null
  const float* position_query;  // as `position_key`
};

/// Workspace of an encoder's call, other than hidden states.
struct EncoderSpace {
  float* sums;    // [tokens, features]: what is added to the residual
  float* normed;  // as `sums`, of norms before a half
  float* rest;    // [tokens, floats of `layer_floats`]
};

/// Input of a call to the layers.
struct LayerInput {
  const EncoderOptions& options;
  const DistanceBiases& biases;
  std::span<const std::int32_t> distance_rows;  // of a layer's tables, for every distance
  const Sequences& sequences;
  std::int64_t features;
  bool first_tokens = false;  // after attention the layer only continues with the first token of each sequence

  /// Rows of `x` after the layer's attention.
  std::int64_t rows() const { return first_tokens ? count_first_tokens(sequences) : sequences.tokens(); }
};

/// Floats per token that a layer needs in `EncoderSpace::rest`.
std::int64_t layer_floats(const EncoderLayer& layer);

/// `x`[tokens, features] after the layer, or with `first_tokens` x[input.rows(), features].
void run_post_norm(const EncoderLayer& layer, const LayerInput& input, float* x, const EncoderSpace& space);

/// The same with norms before each half. On entry, unless this is the first layer, `space.sums` has the previous
/// layer's output, still to be added to `x`; afterwards it has this layer's.
void run_pre_norm(const EncoderLayer& layer, bool first, const LayerInput& input, float* x, const EncoderSpace& space);

}  // namespace sparsekit
