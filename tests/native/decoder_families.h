// Small random decoders, as compiled models and as numbers, that together have all that a decoder may have.
#pragma once

#include "compiled_model.h"

inline constexpr std::int64_t kHeads = 4, kKeyHeads = 2, kHidden = 33, kLayers = 2, kContext = 700;

/// A model and its options.
struct DecoderFamily {
  Tensors tensors;
  sparsekit::DecoderOptions options;

  AlignedBytes file() const { return compiled(tensors, options); }
  Tensor& of(Role role, std::uint32_t layer = sparsekit::kNoLayer) { return tensors[{layer, role}]; }
};

inline sparsekit::DecoderOptions small_decoder_options() {
  return {kLayers,
          kHeadDim,
          static_cast<std::int32_t>(sparsekit::Activation::silu),
          static_cast<std::int32_t>(sparsekit::NormKind::root_mean_square),
          0,
          1e-5F,
          0.35F,
          0.0F,
          0.0F,
          1.0F,
          0};
}

/// As Llama: a gate, rotary positions, heads that share keys, a head tied to the word embeddings, no biases.
inline DecoderFamily llama(sparsekit::Layout layout) {
  DecoderFamily family{{}, small_decoder_options()};
  family.of(Role::word_embeddings) = sparse_tensor(kVocabulary, kFeatures, 1, sparsekit::Layout::dense_f32);
  family.of(Role::final_norm_weight) = float_tensor(kFeatures, 1, 2, 1.0F);
  family.of(Role::rotary) = float_tensor(kContext, kHeadDim, 3, 0.5F);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    const unsigned seed = 10 + 20 * i;
    family.of(Role::attention_norm_weight, i) = float_tensor(kFeatures, 1, seed, 1.0F);
    family.of(Role::query, i) = sparse_tensor(kHeads * kHeadDim, kFeatures, seed + 1, layout);
    family.of(Role::key, i) = sparse_tensor(kKeyHeads * kHeadDim, kFeatures, seed + 2, layout);
    family.of(Role::value, i) = sparse_tensor(kKeyHeads * kHeadDim, kFeatures, seed + 3, layout);
    family.of(Role::attention_output, i) = sparse_tensor(kFeatures, kHeads * kHeadDim, seed + 4, layout);
    family.of(Role::output_norm_weight, i) = float_tensor(kFeatures, 1, seed + 5, 1.0F);
    family.of(Role::up, i) = sparse_tensor(kHidden, kFeatures, seed + 6, layout);
    family.of(Role::gate, i) = sparse_tensor(kHidden, kFeatures, seed + 7, layout);
    family.of(Role::down, i) = sparse_tensor(kFeatures, kHidden, seed + 8, layout);
  }
  return family;
}

/// As Gemma: norms behind the halves too, of queries and keys by heads, a window, a second table, caps.
inline DecoderFamily gemma(sparsekit::Layout layout) {
  DecoderFamily family = llama(layout);
  family.of(Role::local_rotary) = float_tensor(kContext, kHeadDim, 4, 0.5F);
  family.of(Role::windows) = floats_of(kLayers, 1, {5.0F, 0.0F});
  family.of(Role::rotary_kinds) = floats_of(kLayers, 1, {2.0F, 1.0F});
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    family.of(Role::query_norm_weight, i) = float_tensor(kHeadDim, 1, 70 + i, 1.0F);
    family.of(Role::key_norm_weight, i) = float_tensor(kHeadDim, 1, 72 + i, 1.0F);
    family.of(Role::attention_post_norm_weight, i) = float_tensor(kFeatures, 1, 74 + i, 1.0F);
    family.of(Role::feed_forward_post_norm_weight, i) = float_tensor(kFeatures, 1, 76 + i, 1.0F);
  }
  family.options.activation = static_cast<std::int32_t>(sparsekit::Activation::gelu_tanh);
  family.options.attention_cap = 1.5F;
  family.options.logit_cap = 2.0F;
  family.options.embedding_scale = 4.9F;
  return family;
}

/// Layer norms and linear layers with biases, no gate, a head of its own.
inline DecoderFamily with_biases(sparsekit::Layout layout) {
  DecoderFamily family = llama(layout);
  const auto biases = [&](Role role, std::int64_t rows, std::uint32_t layer = sparsekit::kNoLayer) {
    family.of(role, layer) = float_tensor(rows, 1, 80 + 2 * static_cast<unsigned>(role) + layer % 2);
  };
  family.of(Role::head) = sparse_tensor(kVocabulary, kFeatures, 81, layout);
  biases(Role::head_bias, kVocabulary);
  biases(Role::final_norm_bias, kFeatures);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    family.tensors.erase({i, Role::gate});
    biases(Role::attention_norm_bias, kFeatures, i);
    biases(Role::query_bias, kHeads * kHeadDim, i);
    biases(Role::key_bias, kKeyHeads * kHeadDim, i);
    biases(Role::value_bias, kKeyHeads * kHeadDim, i);
    biases(Role::attention_output_bias, kFeatures, i);
    biases(Role::output_norm_bias, kFeatures, i);
    biases(Role::up_bias, kHidden, i);
    biases(Role::down_bias, kFeatures, i);
  }
  family.options.norm = static_cast<std::int32_t>(sparsekit::NormKind::layer);
  return family;
}

/// As GPT-NeoX, with norms of queries and keys: halves of the same input, a part of each head turned.
inline DecoderFamily neox(sparsekit::Layout layout) {
  DecoderFamily family = with_biases(layout);
  family.of(Role::word_embeddings) = int8_table(kVocabulary, kFeatures, 83);
  family.of(Role::rotary) = float_tensor(kContext, kHeadDim / 2, 3, 0.5F);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    family.of(Role::query_norm_weight, i) = float_tensor(kHeadDim, 1, 70 + i, 1.0F);
    family.of(Role::key_norm_weight, i) = float_tensor(kHeadDim, 1, 72 + i, 1.0F);
  }
  family.options.activation = static_cast<std::int32_t>(sparsekit::Activation::gelu);
  family.options.parallel = 1;
  return family;
}

/// As OLMo 2: no norms before the halves, norms of all queries and all keys. The first layer turns nothing.
inline DecoderFamily olmo(sparsekit::Layout layout) {
  DecoderFamily family = llama(layout);
  family.of(Role::rotary_kinds) = floats_of(kLayers, 1, {0.0F, 1.0F});
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    family.tensors.erase({i, Role::attention_norm_weight});
    family.tensors.erase({i, Role::output_norm_weight});
    family.of(Role::query_norm_weight, i) = float_tensor(kHeads * kHeadDim, 1, 70 + i, 1.0F);
    family.of(Role::key_norm_weight, i) = float_tensor(kKeyHeads * kHeadDim, 1, 72 + i, 1.0F);
    family.of(Role::attention_post_norm_weight, i) = float_tensor(kFeatures, 1, 74 + i, 1.0F);
    family.of(Role::feed_forward_post_norm_weight, i) = float_tensor(kFeatures, 1, 76 + i, 1.0F);
  }
  return family;
}

/// As GPT-2: position embeddings. The second layer has lost two heads of queries and one of keys.
inline DecoderFamily gpt2(sparsekit::Layout layout) {
  DecoderFamily family = with_biases(layout);
  family.tensors.erase({sparsekit::kNoLayer, Role::rotary});
  family.of(Role::word_embeddings) = float_tensor(kVocabulary, kFeatures, 1);
  family.of(Role::position_embeddings) = float_tensor(kContext, kFeatures, 95);
  const auto part = [&](Role weight, Role bias, std::int64_t heads) {
    family.of(weight, 1) = sparse_tensor(heads * kHeadDim, kFeatures, 96 + static_cast<unsigned>(weight), layout);
    family.of(bias, 1) = float_tensor(heads * kHeadDim, 1, 97 + static_cast<unsigned>(weight));
  };
  part(Role::query, Role::query_bias, 2);
  part(Role::key, Role::key_bias, 1);
  part(Role::value, Role::value_bias, 1);
  family.of(Role::attention_output, 1) = sparse_tensor(kFeatures, 2 * kHeadDim, 98, layout);
  family.options.activation = static_cast<std::int32_t>(sparsekit::Activation::gelu_tanh);
  return family;
}

/// Logits are products with the norm of an embedding.
inline DecoderFamily bigrams(sparsekit::Layout layout) {
  DecoderFamily family = llama(layout);
  std::erase_if(family.tensors, [](const auto& entry) { return entry.first.first != sparsekit::kNoLayer; });
  family.options.layers = 0;
  return family;
}

struct NamedDecoder {
  const char* name;
  DecoderFamily (*make)(sparsekit::Layout);
};

inline constexpr NamedDecoder kDecoders[] = {{"llama", llama}, {"gemma", gemma}, {"neox", neox},
                                             {"olmo", olmo},   {"gpt2", gpt2},   {"bigrams", bigrams}};
