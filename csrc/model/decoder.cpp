#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../operators/layer_norm.h"
#include "../operators/sparse_linear.h"
#include "../threading/parallel.h"
#include "decoder_tensors.h"

namespace sparsekit {

/// Pieces of sequences that go through the layers together; their tokens lie one after the other in the call's.
struct Decoder::Group {
  std::int64_t first_sequence = 0;
  std::vector<std::int64_t> offsets;  // in the call's tokens: where each piece starts, and the last ends

  Sequences sequences() const { return {offsets.data(), static_cast<std::int64_t>(offsets.size()) - 1}; }
};

Decoder::Decoder(const CompiledFile& file) : options_(file.decoder()) {
  const DecoderTensors tensors(file);
  features_ = tensors.features();
  words_ = tensors.words();
  positions_ = tensors.positions();
  final_norm_ = tensors.final_norm();
  head_ = tensors.head();
  max_tokens_ = tensors.max_tokens();
  cache_shape_.head_dim = options_.head_dim;
  space_ = features_;
  for (std::int32_t i = 0; i < options_.layers; ++i) {
    layers_.push_back(tensors.layer(static_cast<std::uint32_t>(i)));
    cache_shape_.heads.push_back(layers_.back().key.out_features / options_.head_dim);
    space_ = std::max(space_, layer_floats(layers_.back()));
  }
  space_ += 4 * features_;
}

void Decoder::check(const DecoderInput& input) const {
  const Sequences& sequences = input.sequences;
  if (sequences.count < 0 || sequences.offsets[0] != 0) throw std::invalid_argument("offsets must start at 0");
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    if (input.caches[i]->shape() != cache_shape_) {
      throw std::invalid_argument("the cache of sequence " + std::to_string(i) + " is of another model");
    }
    const std::int64_t most = std::min(input.caches[i]->capacity(), max_tokens_) - input.caches[i]->tokens();
    if (sequences.length(i) >= 1 && sequences.length(i) <= most) continue;
    throw std::invalid_argument("sequence " + std::to_string(i) + " must have from 1 to " + std::to_string(most) +
                                " new tokens, got " + std::to_string(sequences.length(i)));
  }
  check_ids(words_, input.ids, sequences.tokens(), "ids");
}

/// `space`: room for the position embeddings.
void Decoder::embed(const std::int32_t* ids, const Sequences& sequences, const std::int64_t* first_positions, float* x,
                    float* space) const {
  const std::int64_t tokens = sequences.tokens();
  lookup_embeddings(words_, ids, tokens, x);
  if (options_.embedding_scale != 1.0F) {
    std::transform(x, x + tokens * features_, x, [&](float value) { return value * options_.embedding_scale; });
  }
  if (positions_.rows == 0) return;
  std::vector<std::int32_t> places(static_cast<std::size_t>(tokens));
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    std::iota(places.begin() + sequences.start(i), places.begin() + sequences.start(i + 1),
              static_cast<std::int32_t>(first_positions[i]));
  }
  lookup_embeddings(positions_, places.data(), tokens, space);
  std::transform(x, x + tokens * features_, space, x, std::plus<>());
}

void Decoder::run(const DecoderInput& input, LogitsOf which, float* logits) const {
  check(input);
  const Sequences& all = input.sequences;
  const std::int64_t most = kGroupTokens * num_threads();
  for (std::int64_t sequence = 0, token = 0; sequence < all.count;) {
    Group group{sequence, {token}};
    const std::int64_t start = token;
    while (sequence < all.count && token - start < most) {
      token = std::min(all.start(sequence + 1), start + most);
      group.offsets.push_back(token);
      if (token == all.start(sequence + 1)) ++sequence;
    }
    run_group(input, group, which, logits);
  }
}

void Decoder::run_group(const DecoderInput& input, const Group& group, LogitsOf which, float* logits) const {
  const Sequences pieces = group.sequences();
  const std::int64_t tokens = pieces.tokens();
  KeyValueCache* const* caches = input.caches + group.first_sequence;
  std::vector<std::int64_t> first_positions;
  for (std::int64_t i = 0; i < pieces.count; ++i) first_positions.push_back(caches[i]->tokens());
  Workspace workspace = workspaces_.take(static_cast<std::size_t>(tokens * space_) * sizeof(float));
  auto* x = reinterpret_cast<float*>(workspace.data.get());
  float* const sums = x + tokens * features_;
  const DecoderSpace space{sums, sums + tokens * features_, sums + 2 * tokens * features_,
                           sums + 3 * tokens * features_};
  embed(input.ids + group.offsets[0], pieces, first_positions.data(), x, space.rest);
  const DecoderRows rows{options_, features_, pieces, first_positions.data(), caches};
  const std::int64_t left = which == LogitsOf::all ? tokens : ended(input, group);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (left < tokens && i + 1 == layers_.size()) {
      run_layer_for_last_tokens(layers_[i], i, rows, left, x, space);
    } else {
      run_layer(layers_[i], i, rows, x, space);
    }
    if (input.between_layers != nullptr) (*input.between_layers)();
  }
  if (left < tokens && layers_.empty()) gather_last_tokens(pieces, left, features_, x);
  for (std::int64_t i = 0; i < pieces.count; ++i) caches[i]->advance(pieces.length(i));
  write_logits(x, sums, left,
               logits + (which == LogitsOf::all ? group.offsets[0] : group.first_sequence) * vocabulary());
  workspaces_.give_back(std::move(workspace));
}

/// Pieces that end their sequence: all but a last one that goes on.
std::int64_t Decoder::ended(const DecoderInput& input, const Group& group) const {
  const Sequences pieces = group.sequences();
  const std::int64_t behind = group.first_sequence + pieces.count;
  return pieces.count - (group.offsets.back() == input.sequences.start(behind) ? 0 : 1);
}

/// Of rows of hidden states, to which `added` belongs; `x` is changed.
void Decoder::write_logits(float* x, const float* added, std::int64_t rows, float* logits) const {
  add_layer_norm({x, layers_.empty() ? nullptr : added, x, rows, features_, final_norm_.weight, final_norm_.bias,
                  options_.norm_eps, nullptr, options_.norm == static_cast<std::int32_t>(NormKind::layer)});
  linear(linear_call(head_, x, rows, logits));
  if (options_.logit_cap == 0.0F) return;
  std::transform(logits, logits + rows * vocabulary(), logits,
                 [&](float logit) { return options_.logit_cap * std::tanh(logit / options_.logit_cap); });
}

}  // namespace sparsekit
