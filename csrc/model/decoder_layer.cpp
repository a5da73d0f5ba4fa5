#include "decoder_layer.h"

#include <algorithm>
#include <functional>

#include "../operators/attention.h"
#include "../operators/layer_norm.h"
#include "../operators/sparse_linear.h"
#include "feed_forward.h"

namespace sparsekit {
namespace {

bool centered(const DecoderOptions& options) { return options.norm == static_cast<std::int32_t>(NormKind::layer); }

/// x = norm(x), where there is a norm.
void normalize(const NormWeights& norm, std::int64_t rows, std::int64_t features, float eps, bool centered, float* x) {
  if (norm.weight == nullptr) return;
  add_layer_norm({x, nullptr, x, rows, features, norm.weight, norm.bias, eps, nullptr, centered});
}

/// x = norm(x) of what a half adds to the residual, where there is a norm behind it.
void normalize_half(const DecoderRows& rows, const NormWeights& norm, float* x) {
  normalize(norm, rows.sequences.tokens(), rows.features, rows.options.norm_eps, centered(rows.options), x);
}

/// Queries or keys of all tokens, as attention takes them.
void prepare(const DecoderLayer& layer, const DecoderRows& rows, const NormWeights& norm, std::int64_t heads,
             float* x) {
  const std::int64_t head_dim = rows.options.head_dim;
  const std::int64_t tokens = rows.sequences.tokens();
  const std::int64_t parts = layer.normalizes_heads ? heads : 1;  // of a token, each normalized by itself
  normalize(norm, tokens * parts, heads * head_dim / parts, rows.options.norm_eps, false, x);
  if (layer.rotary.positions > 0) rotate(layer.rotary, {heads, head_dim, rows.sequences, rows.first_positions, x});
}

/// Heads of `tokens` tokens, [tokens, heads, head_dim], into those of a cache behind its tokens.
void store(const float* input, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
           const KeyValueCache& cache, float* stored) {
  for (std::int64_t head = 0; head < heads; ++head) {
    float* to = stored + (head * cache.capacity() + cache.tokens()) * head_dim;
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::copy_n(input + (t * heads + head) * head_dim, head_dim, to + t * head_dim);
    }
  }
}

/// output = attention of the queries of sequence `i`, whose keys and values are stored behind those of its cache.
void attend_sequence(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, std::int64_t i,
                     const float* query, float* output) {
  const std::int64_t head_dim = rows.options.head_dim;
  const std::int64_t heads = layer.query.out_features / head_dim;
  const std::int64_t key_heads = layer.key.out_features / head_dim;
  KeyValueCache& cache = *rows.caches[i];
  const std::int64_t queries = rows.sequences.length(i);
  const std::int64_t keys = cache.tokens() + queries;
  const std::int64_t start = rows.sequences.start(i) * heads * head_dim;
  const FourSizes query_strides{0, head_dim, heads * head_dim, 1};
  const FourSizes key_shape{1, key_heads, keys, head_dim};
  const FourSizes key_strides{0, cache.capacity() * head_dim, head_dim, 1};
  AttentionCall call{};
  call.query = {query + start, {1, heads, queries, head_dim}, query_strides};
  call.key = {cache.keys(index), key_shape, key_strides};
  call.value = {cache.values(index), key_shape, key_strides};
  call.output = {output + start, {1, heads, queries, head_dim}, query_strides};
  call.causal = true;
  call.scale = rows.options.attention_scale;
  call.window = layer.window;
  call.soft_cap = rows.options.attention_cap;
  attention(call);
}

/// space.sums = output(attention(query(x), key(x), value(x))).
void attend(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, const float* x,
            const DecoderSpace& space) {
  const Sequences& sequences = rows.sequences;
  const std::int64_t tokens = sequences.tokens();
  const std::int64_t head_dim = rows.options.head_dim;
  const std::int64_t key_heads = layer.key.out_features / head_dim;
  float* const query = space.rest;
  float* const key = query + tokens * layer.query.out_features;
  float* const value = key + tokens * layer.key.out_features;
  float* const context = value + tokens * layer.value.out_features;
  joined_linear({linear_call(layer.query, x, tokens, query), linear_call(layer.key, x, tokens, key),
                 linear_call(layer.value, x, tokens, value)});
  prepare(layer, rows, layer.query_norm, layer.query.out_features / head_dim, query);
  prepare(layer, rows, layer.key_norm, key_heads, key);
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    const std::int64_t start = sequences.start(i) * layer.key.out_features;
    KeyValueCache& cache = *rows.caches[i];
    store(key + start, sequences.length(i), key_heads, head_dim, cache, cache.keys(index));
    store(value + start, sequences.length(i), key_heads, head_dim, cache, cache.values(index));
    attend_sequence(layer, index, rows, i, query, context);
  }
  linear(linear_call(layer.attention_output, context, tokens, space.sums));
  normalize_half(rows, layer.attention_post_norm, space.sums);
}

/// output = down(activation(up(x))), gated where there is a gate, and normalized where there is a norm behind it.
void run_feed_forward(const DecoderLayer& layer, const DecoderRows& rows, const float* x, float* hidden,
                      float* output) {
  const std::int64_t tokens = rows.sequences.tokens();
  feed_forward(layer.up, layer.gate, layer.down, static_cast<Activation>(rows.options.activation), x, tokens, hidden,
               output);
  normalize_half(rows, layer.feed_forward_post_norm, output);
}

void add(const float* added, std::int64_t count, float* x) { std::transform(x, x + count, added, x, std::plus<>()); }

}  // namespace

std::int64_t layer_floats(const DecoderLayer& layer) {
  const std::int64_t attention = 2 * layer.query.out_features + layer.key.out_features + layer.value.out_features;
  return std::max(attention, (layer.gate ? 2 : 1) * layer.up.out_features);
}

const float* add_norm(const DecoderOptions& options, const NormWeights& norm, std::int64_t rows, std::int64_t features,
                      const float* added, float* x, float* normed) {
  if (norm.weight == nullptr) {
    if (added != nullptr) add(added, rows * features, x);
    return x;
  }
  add_layer_norm({x, added, normed, rows, features, norm.weight, norm.bias, options.norm_eps,
                  added == nullptr ? nullptr : x, centered(options)});
  return normed;
}

void run_layer(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, float* x,
               const DecoderSpace& space) {
  const std::int64_t tokens = rows.sequences.tokens();
  const auto normed = [&](const NormWeights& norm, const float* added) {
    return add_norm(rows.options, norm, tokens, rows.features, added, x, space.normed);
  };
  attend(layer, index, rows, normed(layer.attention_norm, index == 0 ? nullptr : space.sums), space);
  if (rows.options.parallel != 0) {
    run_feed_forward(layer, rows, normed(layer.output_norm, nullptr), space.rest, space.others);
    add(space.others, tokens * rows.features, space.sums);
  } else {
    run_feed_forward(layer, rows, normed(layer.output_norm, space.sums), space.rest, space.sums);
  }
}

}  // namespace sparsekit
