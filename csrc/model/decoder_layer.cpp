#include "decoder_layer.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "../operators/cache_attention.h"
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

/// Where the queries, keys and values of `tokens` tokens lie, and what attention makes of them.
struct HeadSpace {
  float* query;
  float* key;
  float* value;
  float* context;

  HeadSpace(const DecoderLayer& layer, std::int64_t tokens, const DecoderSpace& space)
      : query(space.rest),
        key(query + tokens * layer.query.out_features),
        value(key + tokens * layer.key.out_features),
        context(value + tokens * layer.value.out_features) {}
};

/// Stores the keys, still to be prepared, and the values of all tokens behind those of their caches.
void store(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, const HeadSpace& heads) {
  const Sequences& sequences = rows.sequences;
  const std::int64_t head_dim = rows.options.head_dim;
  const std::int64_t key_heads = layer.key.out_features / head_dim;
  prepare(layer, rows, layer.key_norm, key_heads, heads.key);
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    const std::int64_t start = sequences.start(i) * layer.key.out_features;
    KeyValueCache& cache = *rows.caches[i];
    store_rows(heads.key + start, sequences.length(i), key_heads, head_dim, cache.keys(index), cache.tokens());
    store_rows(heads.value + start, sequences.length(i), key_heads, head_dim, cache.values(index), cache.tokens());
  }
}

/// space.sums = output(attention(query, keys, values)), of queries that are still to be prepared and of what is stored.
void attend(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, const HeadSpace& heads,
            const DecoderSpace& space) {
  const std::int64_t head_dim = rows.options.head_dim;
  const std::int64_t query_heads = layer.query.out_features / head_dim;
  prepare(layer, rows, layer.query_norm, query_heads, heads.query);
  std::vector<CachedSequence> caches;
  for (std::int64_t i = 0; i < rows.sequences.count; ++i) {
    KeyValueCache& cache = *rows.caches[i];
    caches.push_back({cache.keys(index), cache.values(index), rows.first_positions[i] + rows.sequences.length(i)});
  }
  cache_attention({heads.query, heads.context, query_heads, layer.key.out_features / head_dim, head_dim, rows.sequences,
                   caches.data(), rows.options.attention_scale, layer.window, rows.options.attention_cap});
  linear(linear_call(layer.attention_output, heads.context, rows.sequences.tokens(), space.sums));
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

/// The norm before attention of what earlier layers leave.
const float* add_attention_norm(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows, float* x,
                                const DecoderSpace& space) {
  return add_norm(rows.options, layer.attention_norm, rows.sequences.tokens(), rows.features,
                  index == 0 ? nullptr : space.sums, x, space.normed);
}

/// The half behind attention, whose result is in `space.sums`.
void run_output_half(const DecoderLayer& layer, const DecoderRows& rows, float* x, const DecoderSpace& space) {
  const std::int64_t tokens = rows.sequences.tokens();
  const auto normed = [&](const float* added) {
    return add_norm(rows.options, layer.output_norm, tokens, rows.features, added, x, space.normed);
  };
  if (rows.options.parallel == 0) return run_feed_forward(layer, rows, normed(space.sums), space.rest, space.sums);
  run_feed_forward(layer, rows, normed(nullptr), space.rest, space.others);
  add(space.others, tokens * rows.features, space.sums);
}

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
  const HeadSpace heads(layer, tokens, space);
  const float* normed = add_attention_norm(layer, index, rows, x, space);
  joined_linear({linear_call(layer.query, normed, tokens, heads.query),
                 linear_call(layer.key, normed, tokens, heads.key),
                 linear_call(layer.value, normed, tokens, heads.value)});
  store(layer, index, rows, heads);
  attend(layer, index, rows, heads, space);
  run_output_half(layer, rows, x, space);
}

void run_layer_for_last_tokens(const DecoderLayer& layer, std::size_t index, const DecoderRows& rows,
                               std::int64_t count, float* x, const DecoderSpace& space) {
  const std::int64_t tokens = rows.sequences.tokens();
  const HeadSpace heads(layer, tokens, space);
  const float* normed = add_attention_norm(layer, index, rows, x, space);
  joined_linear(
      {linear_call(layer.key, normed, tokens, heads.key), linear_call(layer.value, normed, tokens, heads.value)});
  store(layer, index, rows, heads);
  gather_last_tokens(rows.sequences, count, rows.features, x);
  if (normed != x) gather_last_tokens(rows.sequences, count, rows.features, space.normed);

  std::vector<std::int64_t> offsets{0};
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < count; ++i) {
    offsets.push_back(i + 1);
    positions.push_back(rows.first_positions[i] + rows.sequences.length(i) - 1);
  }
  const DecoderRows last{rows.options, rows.features, {offsets.data(), count}, positions.data(), rows.caches};
  linear(linear_call(layer.query, normed, count, heads.query));
  attend(layer, index, last, heads, space);
  run_output_half(layer, last, x, space);
}

void gather_last_tokens(const Sequences& sequences, std::int64_t count, std::int64_t features, float* rows) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t last = sequences.start(i + 1) - 1;  // never before `i`
    if (last != i) std::copy_n(rows + last * features, features, rows + i * features);
  }
}

}  // namespace sparsekit
