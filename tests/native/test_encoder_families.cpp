// What some families of encoders have beside BERT's layers, with every instruction set against double precision:
// projected embeddings, biases and tables by distance, norms before the halves of a layer with gates, rotary positions
// and windows; compiled models that contradict themselves are refused.
#include "check.h"
#include "exact_encoder.h"
#include "operators/instruction_set.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kTokens = 18, kHeadDim = 8;

/// A model and its options.
struct Family {
  Tensors tensors;
  EncoderOptions options;

  AlignedBytes file() const { return compiled(tensors, options); }
  Tensor& of(Role role, std::uint32_t layer = kNoLayer) { return tensors[{layer, role}]; }
};

Tensor floats_of(std::int64_t rows, std::int64_t columns, const std::vector<float>& numbers) {
  Tensor tensor = float_tensor(rows, columns, 1);
  tensor.dense = numbers;
  std::memcpy(tensor.bytes.data(), numbers.data(), tensor.bytes.size());
  return tensor;
}

Family projected(Layout layout) {
  constexpr std::int64_t width = 37;
  Family family{small_encoder(layout), small_options()};
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
Family biased(Layout layout) {
  Family family{small_encoder(layout), small_options()};
  family.tensors.erase({kNoLayer, Role::type_embeddings});
  for (const Role role : {Role::query, Role::key, Role::value, Role::attention_output}) {
    family.of(role, 1) = sparse_tensor(kFeatures, kFeatures, 40 + static_cast<unsigned>(role), layout);
  }
  std::vector<float> biases = random_floats(3 * (2 * kTokens - 1), 50);
  for (float& bias : biases) bias *= 2.0F;
  family.of(Role::distance_biases) = floats_of(3, 2 * kTokens - 1, biases);
  return family;
}

Tensor rotary_table(float step) {
  std::vector<float> numbers;
  for (std::int64_t i = 0; i < kTokens * kHeadDim; ++i) {
    const std::int64_t angle = i % (kHeadDim / 2);
    const float turned = static_cast<float>(i / kHeadDim) * step / static_cast<float>(1 + angle);
    numbers.push_back(i % kHeadDim < kHeadDim / 2 ? std::cos(turned) : std::sin(turned));
  }
  return floats_of(kTokens, kHeadDim, numbers);
}

/// The first layer sees everything and has no norm before attention, the second has a window.
Family pre_norm(Layout layout) {
  Family family{small_encoder(layout), small_options()};
  family.options.first_position = 0;
  family.options.block_order = static_cast<std::int32_t>(BlockOrder::pre_norm);
  family.tensors.erase({kNoLayer, Role::position_embeddings});
  family.tensors.erase({kNoLayer, Role::type_embeddings});
  family.tensors.erase({kNoLayer, Role::embedding_norm_bias});
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
Family mixed(Layout layout) {
  Family family = pre_norm(layout);
  family.of(Role::position_embeddings) = float_tensor(kPositions, kFeatures, 70);
  family.of(Role::attention_norm_weight, 0) = float_tensor(kFeatures, 1, 71, 1.0F);
  family.tensors.erase({kNoLayer, Role::local_rotary});
  family.tensors.erase({1, Role::gate});
  return family;
}

/// Without layers, and with token types alone.
/// Tables by distance, both in the first layer and one in the second, whose heads are fewer; a norm behind projected
/// embeddings; without positions in embeddings.
Family disentangled(Layout layout) {
  constexpr std::int64_t rows = 12;
  Family family = projected(layout);
  family.tensors.erase({kNoLayer, Role::position_embeddings});
  family.tensors.erase({kNoLayer, Role::embedding_norm_weight});
  family.tensors.erase({kNoLayer, Role::embedding_norm_bias});
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
Family disentangled_in_windows(Layout layout) {
  Family family = biased(layout);
  family.tensors.erase({kNoLayer, Role::position_embeddings});
  const Family other = disentangled(layout);
  for (const auto& [key, tensor] : other.tensors) {
    if (key.first == kNoLayer || key.second >= Role::position_key) family.tensors[key] = tensor;
  }
  family.tensors.erase({kNoLayer, Role::type_embeddings});
  family.of(Role::embedding_norm_weight) = float_tensor(37, 1, 90, 1.0F);
  family.of(Role::embedding_norm_bias) = float_tensor(37, 1, 91);
  family.of(Role::position_query, 1) = float_tensor(12, kFeatures, 92);
  family.of(Role::windows) = floats_of(2, 1, {0.0F, 3.0F});
  return family;
}

Family without_layers(Layout layout) {
  Family family = pre_norm(layout);
  family.options.layers = 0;
  family.tensors.erase({kNoLayer, Role::windows});
  family.of(Role::type_embeddings) = float_tensor(2, kFeatures, 72);
  return family;
}

void computes(const Family& family) {
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
  CHECK(encoder.max_tokens() == kTokens && encoder.features() == kFeatures);
  computes_hidden_states(family.tensors, family.options, encoder);
}

void open(const Family& family) {
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
}

template <class Change>
void refuses(Family (*make)(Layout), const Change& change, const char* why) {
  Family family = make(Layout::sell_f32);
  open(family);
  change(family);
  CHECK_THROWS(open(family), why);
}

void refuses_models_that_do_not_fit() {
  const auto weight = [](std::int64_t rows, std::int64_t columns) {
    return sparse_tensor(rows, columns, 1, Layout::sell_f32);
  };
  refuses(projected, [&](Family& f) { f.of(Role::embedding_projection) = weight(kFeatures, 36); }, "does not fit");
  refuses(
      projected, [&](Family& f) { f.of(Role::embedding_projection) = weight(kFeatures + 1, 37); },
      "must have 25 floats");
  refuses(projected, [&](Family& f) { f.of(Role::embedding_projection) = float_tensor(kFeatures, 37, 1); }, "packed");
  refuses(projected, [&](Family& f) { f.of(Role::type_embeddings) = float_tensor(2, 24, 1); }, "37 columns");
  refuses(biased, [](Family& f) { f.of(Role::distance_biases) = float_tensor(2, 35, 1); }, "another number of heads");
  refuses(biased, [](Family& f) { f.of(Role::distance_biases) = float_tensor(3, 36, 1); }, "odd number of columns");
  refuses(biased, [](Family& f) { f.of(Role::distance_biases) = float_tensor(3, 33, 1); }, "as far as positions");
  refuses(biased, [&](Family& f) { f.of(Role::distance_biases) = weight(3, 35); }, "must be floats");
  const auto replaced = [](Role role, std::uint32_t layer, const Tensor& tensor) {
    return [=](Family& f) { f.of(role, layer) = tensor; };
  };
  const auto row_numbers = [&](float number) {
    std::vector<float> numbers(2 * kTokens - 1, 1.0F);
    numbers[4] = number;
    return replaced(Role::distance_rows, kNoLayer, floats_of(2 * kTokens - 1, 1, numbers));
  };
  for (const float number : {-1.0F, 0.5F, 3e7F, std::numeric_limits<float>::quiet_NaN()}) {
    refuses(disentangled, row_numbers(number), "tensor 14 must be whole numbers from 0 to 2^24");
  }
  refuses(disentangled, row_numbers(12.0F), "tensor 34 of layer 0 must have a row for each distance");
  refuses(disentangled, replaced(Role::distance_rows, kNoLayer, float_tensor(2 * kTokens, 1, 1)),
          "odd number of floats");
  refuses(disentangled, replaced(Role::distance_rows, kNoLayer, weight(2 * kTokens - 1, 1)), "odd number of floats");
  refuses(disentangled, replaced(Role::distance_rows, kNoLayer, float_tensor(5, 3, 1)), "odd number of floats");
  refuses(disentangled, replaced(Role::position_key, 0, float_tensor(11, kFeatures, 1)), "a row for each distance");
  refuses(disentangled, replaced(Role::position_query, 1, float_tensor(12, 17, 1)), "as many columns as the layer has");
  refuses(disentangled, replaced(Role::position_query, 0, weight(12, kFeatures)), "must be floats");
  refuses(
      disentangled, [](Family& f) { f.tensors.erase({kNoLayer, Role::distance_rows}); },
      "neither position embeddings nor rotary ones nor rows");
  refuses(biased, replaced(Role::position_key, 0, float_tensor(12, kFeatures, 1)), "without rows for distances");
  refuses(
      disentangled, [](Family& f) { f.tensors.erase({kNoLayer, Role::projection_norm_weight}); },
      "tensor 4 is missing");
  refuses(
      disentangled, [](Family& f) { f.of(Role::projection_norm_weight) = float_tensor(37, 1, 1); },
      "must have 24 floats");
  refuses(
      biased, [](Family& f) { f.of(Role::projection_norm_weight) = float_tensor(kFeatures, 1, 1); },
      "without their projection");
  refuses(pre_norm, [](Family& f) { f.options.block_order = 2; }, "unknown order of blocks");
  refuses(pre_norm, [](Family& f) { f.options.block_order = -1; }, "unknown order of blocks");
  refuses(pre_norm, [](Family& f) { f.options.block_order = 0; }, "tensor 24 of layer 0 is missing");
  refuses(pre_norm, [](Family& f) { f.tensors.erase({kNoLayer, Role::final_norm_weight}); }, "tensor 9 is missing");
  refuses(pre_norm, [](Family& f) { f.tensors.erase({1, Role::attention_norm_weight}); }, "of layer 1 is missing");
  refuses(pre_norm, [&](Family& f) { f.of(Role::gate, 0) = weight(39, kFeatures); }, "does not fit");
  refuses(pre_norm, [](Family& f) { f.of(Role::rotary) = float_tensor(kTokens, 7, 1); }, "an even number");
  refuses(pre_norm, [&](Family& f) { f.of(Role::local_rotary) = weight(kTokens, kHeadDim); }, "must be floats");
  refuses(pre_norm, [](Family& f) { f.of(Role::rotary) = float_tensor(0, kHeadDim, 1); }, "no position for a token");
  refuses(
      pre_norm,
      [](Family& f) {
        f.tensors.erase({kNoLayer, Role::rotary});
        f.tensors.erase({kNoLayer, Role::local_rotary});
      },
      "neither position embeddings nor rotary ones");
  refuses(pre_norm, [](Family& f) { f.of(Role::windows) = floats_of(1, 1, {1.0F}); }, "must have 2 floats");
  for (const float window : {-1.0F, 0.5F, 1e9F, std::numeric_limits<float>::quiet_NaN()}) {
    refuses(
        pre_norm, [&](Family& f) { f.of(Role::windows) = floats_of(2, 1, {0.0F, window}); },
        "the window of layer 1 must be a whole number from 0 to 2^24");
  }
}

}  // namespace

int main() {
  refuses_models_that_do_not_fit();
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const Layout layout : {Layout::sell_f32, Layout::csr_f32}) {
      computes(projected(layout));
      computes(biased(layout));
      computes(disentangled(layout));
      computes(disentangled_in_windows(layout));
      computes(pre_norm(layout));
      computes(mixed(layout));
      computes(without_layers(layout));
    }
  }
  return check::result();
}
