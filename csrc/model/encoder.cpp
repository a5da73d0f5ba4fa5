#include "encoder.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../operators/layer_norm.h"
#include "../operators/sparse_linear.h"
#include "../threading/parallel.h"
#include "encoder_tensors.h"

namespace sparsekit {
namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 24;

}  // namespace

Encoder::Encoder(const CompiledFile& file) : options_(file.encoder()) {
  const EncoderTensors tensors(file);
  words_ = tensors.table(Role::word_embeddings);
  positions_ = tensors.optional_table(Role::position_embeddings);
  types_ = tensors.optional_table(Role::type_embeddings);
  embedding_norm_ = tensors.embedding_norm();
  projection_ = tensors.projection();
  projection_norm_ = tensors.projection_norm();
  biases_ = tensors.distance_biases();
  distance_rows_ = tensors.distance_rows();
  max_tokens_ = tensors.max_tokens();
  head_ = tensors.head();
  if (pre_norm()) {
    final_norm_ = tensors.norm(kNoLayer, Role::final_norm_weight, Role::final_norm_bias, features());
  }
  for (std::int32_t i = 0; i < options_.layers; ++i) layers_.push_back(tensors.layer(static_cast<std::uint32_t>(i)));
  space_ = 2 * words_.features;
  for (const EncoderLayer& layer : layers_) {
    space_ = std::max(space_, (pre_norm() ? 2 : 1) * features() + layer_floats(layer));
  }
}

void Encoder::check(const EncoderInput& input) const {
  const Sequences& sequences = input.sequences;
  if (sequences.count < 0 || sequences.offsets[0] != 0) throw std::invalid_argument("offsets must start at 0");
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    if (sequences.length(i) >= 0 && sequences.length(i) <= max_tokens()) continue;
    throw std::invalid_argument("sequences must have from 0 to " + std::to_string(max_tokens()) + " tokens, got " +
                                std::to_string(sequences.length(i)) + " in sequence " + std::to_string(i) +
                                "; truncate it");
  }
  if (sequences.tokens() > kMaxTokens) {
    throw std::invalid_argument("a call has at most " + std::to_string(kMaxTokens) + " tokens, got " +
                                std::to_string(sequences.tokens()) + "; cut it into several");
  }
  check_ids(words_, input.ids, sequences.tokens(), "ids");
  if (input.types == nullptr) return;
  if (types_.rows == 0) throw std::invalid_argument("the model has no token types; leave them out");
  check_ids(types_, input.types, sequences.tokens(), "token types");
}

/// `space`: room for the sum of position and type embeddings, and for those of words where they are projected.
void Encoder::embed(const EncoderInput& input, float* output, float* space) const {
  const std::int64_t tokens = input.sequences.tokens();
  float* const others = positions_.rows + types_.rows > 0 ? space : nullptr;
  float* const words = projection_ ? space + tokens * words_.features : output;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  if (positions_.rows > 0) {
    for (std::int64_t i = 0; i < input.sequences.count; ++i) {
      std::iota(ids.begin() + input.sequences.start(i), ids.begin() + input.sequences.start(i + 1),
                options_.first_position);
    }
    lookup_embeddings(positions_, ids.data(), tokens, others);
  }
  if (types_.rows > 0) {
    if (input.types == nullptr) std::fill(ids.begin(), ids.end(), 0);
    const auto look_up = positions_.rows > 0 ? add_embeddings : lookup_embeddings;
    look_up(types_, input.types == nullptr ? ids.data() : input.types, tokens, others);
  }
  lookup_embeddings(words_, input.ids, tokens, words);
  const auto norm = [&](const NormWeights& weights, const float* added, std::int64_t width, float* x) {
    add_layer_norm({x, added, x, tokens, width, weights.weight, weights.bias, options_.norm_eps});
  };
  if (embedding_norm_) {
    norm(*embedding_norm_, others, words_.features, words);
  } else if (others != nullptr) {
    std::transform(words, words + tokens * words_.features, others, words, std::plus<>());
  }
  if (projection_) linear(linear_call(*projection_, words, tokens, output));
  if (projection_norm_) norm(*projection_norm_, nullptr, features(), output);
}

/// With `first_tokens` the last layer computes theirs alone, and they are where they were.
void Encoder::run_layers(const EncoderInput& input, bool first_tokens, float* x, const EncoderSpace& space) const {
  LayerInput all{options_, biases_, distance_rows_, input.sequences, features()};
  for (const EncoderLayer& layer : layers_) {
    all.first_tokens = first_tokens && &layer == &layers_.back();
    if (pre_norm()) {
      run_pre_norm(layer, &layer == layers_.data(), all, x, space);
    } else {
      run_post_norm(layer, all, x, space);
    }
    if (input.between_layers != nullptr) (*input.between_layers)();
  }
  if (pre_norm()) {
    add_layer_norm({x, layers_.empty() ? nullptr : space.sums, x, all.rows(), features(), final_norm_.weight,
                    final_norm_.bias, options_.norm_eps});
  }
  if (first_tokens) scatter_first_tokens(input.sequences, features(), x);
}

void Encoder::run(const EncoderInput& input, float* output) const {
  check(input);
  run_groups(input, false, output);
}

void Encoder::run_groups(const EncoderInput& input, bool first_tokens, float* output) const {
  const Sequences& all = input.sequences;
  const std::int64_t most = kGroupTokens * num_threads();
  for (std::int64_t first = 0; first < all.count;) {
    std::int64_t last = first + 1;
    while (last < all.count && all.start(last + 1) - all.start(first) <= most) ++last;
    const std::int64_t start = all.start(first);
    run_group({input.ids + start,
               input.types == nullptr ? nullptr : input.types + start,
               {all.offsets + first, last - first},
               input.between_layers},
              first_tokens, output + start * features());
    first = last;
  }
}

void Encoder::run_group(const EncoderInput& input, bool first_tokens, float* output) const {
  const std::int64_t tokens = input.sequences.tokens();
  if (tokens == 0) return;
  const auto floats = static_cast<std::size_t>(tokens * space_);
  Workspace workspace = workspaces_.take(floats * sizeof(float));
  auto* start = reinterpret_cast<float*>(workspace.data.get());
  embed(input, output, start);
  float* const normed = start + tokens * features();
  run_layers(input, first_tokens, output, {start, normed, normed + (pre_norm() ? tokens * features() : 0)});
  workspaces_.give_back(std::move(workspace));
}

void Encoder::encode(const EncoderInput& input, float* output) const {
  if (!encodes()) {
    throw std::invalid_argument("the model does not say how tokens become one vector; compile it with a pooling");
  }
  check(input);
  const bool by_token = task() == Task::token_classification;
  const std::int64_t tokens = input.sequences.tokens();
  const std::int64_t rows = by_token ? tokens : input.sequences.count;
  const std::int64_t pooled = by_token ? 0 : rows * features();
  const std::int64_t floats = tokens * features() + pooled + rows * head_.space();
  Workspace space = workspaces_.take(static_cast<std::size_t>(std::max<std::int64_t>(1, floats)) * sizeof(float));
  auto* states = reinterpret_cast<float*>(space.data.get());
  float* const vectors = by_token ? states : states + tokens * features();
  run_groups(input, reads_first_tokens(), states);
  if (!by_token) pool(pooling(), states, features(), input.sequences, vectors);
  apply_head(head_, vectors, rows, states + tokens * features() + pooled, output);
  if (options_.normalize != 0) normalize_rows(output, rows, outputs());
  workspaces_.give_back(std::move(space));
}

}  // namespace sparsekit
