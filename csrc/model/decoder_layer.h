// A transformer block of a decoder.
//
//   one half after the other (Llama)   x = x + post(output(attention(query(norm(x)), key(norm(x)), value(norm(x)))))
//                                      x = x + post(down(activation(up(norm(x))) [* gate(norm(x))]))
//   both halves of the same (GPT-NeoX) x = x + output(attention(query(norm1(x)), ...)) + down(activation(up(norm2(x))))
//
// Each norm may be missing. Queries and keys may be normalized, by heads or as a whole, and turned by their positions;
// keys and values go to the caches of their sequences, and attention reads them there.
#pragma once

#include <optional>

#include "../operators/rotary.h"
#include "compiled_file.h"
#include "key_value_cache.h"
#include "weights.h"

namespace sparsekit {

struct DecoderLayer {
  NormWeights attention_norm;  // norms without a weight are missing
  LinearWeights query;
  LinearWeights key;
  LinearWeights value;
  NormWeights query_norm;
  NormWeights key_norm;
  bool normalizes_heads;  // each by itself, with the same weights
  LinearWeights attention_output;
  NormWeights attention_post_norm;
  NormWeights output_norm;  // before the feed-forward half
  LinearWeights up;
  std::optional<LinearWeights> gate;
  LinearWeights down;
  NormWeights feed_forward_post_norm;
  std::int64_t window;  // last keys that a token sees, its own among them; 0 for all
  RotaryTable rotary;
};

/// Tokens that go through a layer together; those of a sequence follow the ones in its cache.
struct DecoderRows {
  const DecoderOptions& options;
  std::int64_t features;
  Sequences sequences;
  const std::int64_t* first_positions;  // [sequences]
  KeyValueCache* const* caches;         // [sequences]
};

/// Workspace of a call, other than hidden states.
struct DecoderSpace {
  float* sums;    // [tokens, features]: what is added to the residual
  float* normed;  // as `sums`, of norms
  float* others;  // as `sums`, of a second half that goes beside the first
  float* rest;    // [tokens, floats of `layer_floats`]
};

/// Floats per token that a layer needs in `DecoderSpace::rest`.
std::int64_t layer_floats(const DecoderLayer& layer);

/// norm(x + added), in `normed`, or x itself where there is no norm; x += added. `added` may be null.
const float* add_norm(const DecoderOptions& options, const NormWeights& norm, std::int64_t rows, std::int64_t features,
                      const float* added, float* x, float* normed);

/// Layer `index`, over x[tokens, features]. On entry, unless this is the first layer, `space.sums` has the previous
/// layer's output, still to be added to `x`; afterwards it has this layer's.
void run_layer(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, float* x,
               const DecoderSpace& space);

/// The same, but beyond keys and values only of the last tokens of the first `count` sequences: `x` and `space.sums`
/// have their rows alone afterwards, [count, features].
void run_layer_for_last_tokens(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows,
                               std::int64_t count, float* x, const DecoderSpace& space);

/// Moves the rows of the last tokens of the first `count` sequences, of rows[tokens, features], to the front.
void gather_last_tokens(const Sequences& sequences, std::int64_t count, std::int64_t features, float* rows);

}  // namespace sparsekit
