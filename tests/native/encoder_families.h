// Small random encoders of the families that the engine runs, as compiled models and as numbers.
#pragma once

#include "compiled_model.h"
#include "model/head.h"

inline constexpr std::int64_t kTokens = 18;

/// A model and its options.
struct EncoderFamily {
  Tensors tensors;
  sparsekit::EncoderOptions options;

  AlignedBytes file() const { return compiled(tensors, options); }
  Tensor& of(Role role, std::uint32_t layer = sparsekit::kNoLayer) { return tensors[{layer, role}]; }
};

inline EncoderFamily projected(sparsekit::Layout layout) {
  constexpr std::int64_t width = 37;
  EncoderFamily family{small_encoder(layout), small_options()};
  family.of(Role::word_embeddings) = int8_table(kVocabulary, width, 1);
  family.of(Role::position_embeddings) = float_tensor(kPositions, width, 2);
  family.of(Role::type_embeddings) = float_tensor(2, width, 3);
  family.of(Role::embedding_norm_weight) = float_tensor(width, 1, 4, 1.0F);
  family.of(Role::embedding_norm_bias) = float_tensor(width, 1, 5);
  family.of(Role::embedding_projection) = sparse_tensor(kFeatures, width, 6, layout);
  family.of(Role::embedding_projection_bias) = float_tensor(kFeatures, 1, 7);
  return family;
}

/// Without token types; both layers have three heads.
inline EncoderFamily biased(sparsekit::Layout layout) {
  EncoderFamily family{small_encoder(layout), small_options()};
  family.tensors.erase({sparsekit::kNoLayer, Role::type_embeddings});
  for (const Role role : {Role::query, Role::key, Role::value, Role::attention_output}) {
    family.of(role, 1) = sparse_tensor(kFeatures, kFeatures, 40 + static_cast<unsigned>(role), layout);
  }
  std::vector<float> biases = random_floats(3 * (2 * kTokens - 1), 50);
  for (float& bias : biases) bias *= 2.0F;
  family.of(Role::distance_biases) = floats_of(3, 2 * kTokens - 1, biases);
  return family;
}

inline Tensor rotary_table(float step) {
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < kTokens * kHeadDim; ++i) {
    const std::int64_t angle = i % (kHeadDim / 2);
    const float turned = static_cast<float>(i / kHeadDim) * step / static_cast<float>(1 + angle);
    numbers.push_back(i % kHeadDim < kHeadDim / 2 ? std::cos(turned) : std::sin(turned));
  }
  return floats_of(kTokens, kHeadDim, numbers);
}

/// The first layer sees everything and has no norm before attention, the second has a window.
inline EncoderFamily pre_norm(sparsekit::Layout layout) {
  EncoderFamily family{small_encoder(layout), small_options()};
  family.options.first_position = 0;
  family.options.block_order = static_cast<std::int32_t>(sparsekit::BlockOrder::pre_norm);
  family.tensors.erase({sparsekit::kNoLayer, Role::position_embeddings});
  family.tensors.erase({sparsekit::kNoLayer, Role::type_embeddings});
  family.tensors.erase({sparsekit::kNoLayer, Role::embedding_norm_bias});
  family.tensors.erase({0, Role::attention_norm_weight});
  family.tensors.erase({0, Role::attention_norm_bias});
  family.tensors.erase({1, Role::output_norm_bias});
  family.of(Role::final_norm_weight) = float_tensor(kFeatures, 1, 60, 1.0F);
  family.of(Role::final_norm_bias) = float_tensor(kFeatures, 1, 61);
  family.of(Role::gate, 0) = sparse_tensor(40, kFeatures, 62, layout);
  family.of(Role::gate_bias, 0) = float_tensor(40, 1, 63);
  family.of(Role::gate, 1) = sparse_tensor(33, kFeatures, 64, layout);
  family.of(Role::rotary) = rotary_table(0.3F);
  family.of(Role::local_rotary) = rotary_table(1.1F);
  family.of(Role::windows) = floats_of(2, 1, {0.0F, 2.0F});
  return family;
}

/// Pieces of one family in another: each is there or not by itself.
inline EncoderFamily mixed(sparsekit::Layout layout) {
  EncoderFamily family = pre_norm(layout);
  family.of(Role::position_embeddings) = float_tensor(kPositions, kFeatures, 70);
  family.of(Role::attention_norm_weight, 0) = float_tensor(kFeatures, 1, 71, 1.0F);
  family.tensors.erase({sparsekit::kNoLayer, Role::local_rotary});
  family.tensors.erase({1, Role::gate});
  return family;
}

/// Tables by distance, both in the first layer and one in the second, whose heads are fewer; a norm behind projected
/// embeddings; without positions in embeddings.
inline EncoderFamily disentangled(sparsekit::Layout layout) {
  constexpr std::int64_t rows = 12;
  EncoderFamily family = projected(layout);
  family.tensors.erase({sparsekit::kNoLayer, Role::position_embeddings});
  family.tensors.erase({sparsekit::kNoLayer, Role::embedding_norm_weight});
  family.tensors.erase({sparsekit::kNoLayer, Role::embedding_norm_bias});
  family.of(Role::projection_norm_weight) = float_tensor(kFeatures, 1, 80, 1.0F);
  family.of(Role::projection_norm_bias) = float_tensor(kFeatures, 1, 81);
  std::vector<float> of_distances;
  for (std::int64_t distance = 1 - kTokens; distance < kTokens; ++distance) {
    of_distances.push_back(static_cast<float>(std::clamp<std::int64_t>(distance / 2 + rows / 2, 0, rows - 1)));
  }
  family.of(Role::distance_rows) = floats_of(2 * kTokens - 1, 1, of_distances);
  family.of(Role::position_key, 0) = float_tensor(rows, kFeatures, 82);
  family.of(Role::position_query, 0) = float_tensor(rows, kFeatures, 83);
  family.of(Role::position_query, 1) = float_tensor(rows + 3, 16, 84);
  return family;
}

/// The same beside biases by distance, a window in the second layer, and norms on both sides of the projection.
inline EncoderFamily disentangled_in_windows(sparsekit::Layout layout) {
  EncoderFamily family = biased(layout);
  family.tensors.erase({sparsekit::kNoLayer, Role::position_embeddings});
  const EncoderFamily other = disentangled(layout);
  for (const auto& [key, tensor] : other.tensors) {
    if (key.first == sparsekit::kNoLayer || key.second >= Role::position_key) family.tensors[key] = tensor;
  }
  family.tensors.erase({sparsekit::kNoLayer, Role::type_embeddings});
  family.of(Role::embedding_norm_weight) = float_tensor(37, 1, 90, 1.0F);
  family.of(Role::embedding_norm_bias) = float_tensor(37, 1, 91);
  family.of(Role::position_query, 1) = float_tensor(12, kFeatures, 92);
  family.of(Role::windows) = floats_of(2, 1, {0.0F, 3.0F});
  return family;
}

/// Without layers, and with token types alone.
inline EncoderFamily without_layers(sparsekit::Layout layout) {
  EncoderFamily family = pre_norm(layout);
  family.options.layers = 0;
  family.tensors.erase({sparsekit::kNoLayer, Role::windows});
  family.of(Role::type_embeddings) = float_tensor(2, kFeatures, 72);
  return family;
}

/// Every table of embeddings in int8.
inline EncoderFamily int8_tables(sparsekit::Layout layout) {
  EncoderFamily family{small_encoder(layout), small_options()};
  family.of(Role::position_embeddings) = int8_table(kPositions, kFeatures, 80);
  family.of(Role::type_embeddings) = int8_table(2, kFeatures, 81);
  return family;
}

/// Five labels of each token.
inline EncoderFamily labels_of_tokens(EncoderFamily family, sparsekit::Layout layout) {
  family.options.task = static_cast<std::int32_t>(sparsekit::Task::token_classification);
  family.options.pooling = static_cast<std::int32_t>(sparsekit::Pooling::none);
  family.options.normalize = 0;
  family.of(Role::classifier) = sparse_tensor(5, kFeatures, 62, layout);
  return family;
}

/// Five labels of each sequence, from its pooled tokens by two layers with a norm between them.
inline EncoderFamily labels_of_sequences(EncoderFamily family, sparsekit::Layout layout, sparsekit::Pooling pooling) {
  family.options.task = static_cast<std::int32_t>(sparsekit::Task::classification);
  family.options.pooling = static_cast<std::int32_t>(pooling);
  family.options.normalize = 0;
  family.options.head_activation = static_cast<std::int32_t>(sparsekit::HeadActivation::tanh);
  family.of(Role::head_dense) = sparse_tensor(30, kFeatures, 60, layout);
  family.of(Role::head_dense_bias) = float_tensor(30, 1, 61);
  family.of(Role::head_norm_weight) = float_tensor(30, 1, 63, 1.0F);
  family.of(Role::head_norm_bias) = float_tensor(30, 1, 64);
  family.of(Role::classifier) = sparse_tensor(5, 30, 65, layout);
  return family;
}
