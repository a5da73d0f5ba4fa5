// What some families of encoders have beside BERT's layers, with every instruction set against double precision:
// embeddings in int8 or projected, biases and tables by distance, norms before the halves of a layer with gates, rotary
// positions and windows; compiled models that contradict themselves are refused.
#include "check.h"
#include "encoder_families.h"
#include "exact_encoder.h"
#include "operators/instruction_set.h"

using namespace sparsekit;

namespace {

void computes(const EncoderFamily& family) {
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
  CHECK(encoder.max_tokens() == kTokens && encoder.features() == kFeatures);
  computes_hidden_states(family.tensors, family.options, encoder);
}

/// Vectors of first tokens, for which the last layer computes no others, are those among all hidden states: of several
/// groups of tokens, and zeros of sequences without one.
void pools_first_tokens(EncoderFamily family) {
  family.options.pooling = static_cast<std::int32_t>(Pooling::cls);
  family.options.normalize = 0;
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
  for (const std::int64_t times : {1, 20}) {
    const Batch batch(times);
    EncoderInput input = batch.input();
    if (encoder.types() == 0) input.types = nullptr;
    std::vector<float> states(batch.ids.size() * kFeatures);
    std::vector<float> vectors(static_cast<std::size_t>(batch.count() * kFeatures), 7.0F);
    std::vector<float> expected(vectors.size());
    encoder.run(input, states.data());
    encoder.encode(input, vectors.data());
    pool(Pooling::cls, states.data(), kFeatures, input.sequences, expected.data());
    CHECK(furthest(Doubles(expected.begin(), expected.end()), vectors.data()) < kTolerance / 5);
  }
}

void open(const EncoderFamily& family) {
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
}

template <class Change>
void refuses(EncoderFamily (*make)(Layout), const Change& change, const char* why) {
  EncoderFamily family = make(Layout::sell_f32);
  open(family);
  change(family);
  CHECK_THROWS(open(family), why);
}

void refuses_models_that_do_not_fit() {
  const auto weight = [](std::int64_t rows, std::int64_t columns) {
    return sparse_tensor(rows, columns, 1, Layout::sell_f32);
  };
  refuses(
      projected, [&](EncoderFamily& f) { f.of(Role::embedding_projection) = weight(kFeatures, 36); }, "does not fit");
  refuses(
      projected, [&](EncoderFamily& f) { f.of(Role::embedding_projection) = weight(kFeatures + 1, 37); },
      "must have 25 floats");
  refuses(
      projected, [&](EncoderFamily& f) { f.of(Role::embedding_projection) = float_tensor(kFeatures, 37, 1); },
      "packed");
  refuses(projected, [&](EncoderFamily& f) { f.of(Role::type_embeddings) = float_tensor(2, 24, 1); }, "37 columns");
  refuses(
      biased, [](EncoderFamily& f) { f.of(Role::distance_biases) = float_tensor(2, 35, 1); },
      "another number of heads");
  refuses(
      biased, [](EncoderFamily& f) { f.of(Role::distance_biases) = float_tensor(3, 36, 1); }, "odd number of columns");
  refuses(
      biased, [](EncoderFamily& f) { f.of(Role::distance_biases) = float_tensor(3, 33, 1); }, "as far as positions");
  refuses(biased, [&](EncoderFamily& f) { f.of(Role::distance_biases) = weight(3, 35); }, "must be floats");
  const auto replaced = [](Role role, std::uint32_t layer, const Tensor& tensor) {
    return [=](EncoderFamily& f) { f.of(role, layer) = tensor; };
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
      disentangled, [](EncoderFamily& f) { f.tensors.erase({kNoLayer, Role::distance_rows}); },
      "neither position embeddings nor rotary ones nor rows");
  refuses(biased, replaced(Role::position_key, 0, float_tensor(12, kFeatures, 1)), "without rows for distances");
  refuses(
      disentangled, [](EncoderFamily& f) { f.tensors.erase({kNoLayer, Role::projection_norm_weight}); },
      "tensor 4 is missing");
  refuses(
      disentangled, [](EncoderFamily& f) { f.of(Role::projection_norm_weight) = float_tensor(37, 1, 1); },
      "must have 24 floats");
  refuses(
      biased, [](EncoderFamily& f) { f.of(Role::projection_norm_weight) = float_tensor(kFeatures, 1, 1); },
      "without their projection");
  refuses(pre_norm, [](EncoderFamily& f) { f.options.block_order = 2; }, "unknown order of blocks");
  refuses(pre_norm, [](EncoderFamily& f) { f.options.block_order = -1; }, "unknown order of blocks");
  refuses(pre_norm, [](EncoderFamily& f) { f.options.block_order = 0; }, "tensor 24 of layer 0 is missing");
  refuses(
      pre_norm, [](EncoderFamily& f) { f.tensors.erase({kNoLayer, Role::final_norm_weight}); }, "tensor 9 is missing");
  refuses(
      pre_norm, [](EncoderFamily& f) { f.tensors.erase({1, Role::attention_norm_weight}); }, "of layer 1 is missing");
  refuses(pre_norm, [&](EncoderFamily& f) { f.of(Role::gate, 0) = weight(39, kFeatures); }, "does not fit");
  refuses(pre_norm, [](EncoderFamily& f) { f.of(Role::rotary) = float_tensor(kTokens, 7, 1); }, "an even number");
  refuses(pre_norm, [&](EncoderFamily& f) { f.of(Role::local_rotary) = weight(kTokens, kHeadDim); }, "must be floats");
  refuses(
      pre_norm, [](EncoderFamily& f) { f.of(Role::rotary) = float_tensor(0, kHeadDim, 1); }, "no position for a token");
  refuses(
      pre_norm,
      [](EncoderFamily& f) {
        f.tensors.erase({kNoLayer, Role::rotary});
        f.tensors.erase({kNoLayer, Role::local_rotary});
      },
      "neither position embeddings nor rotary ones");
  refuses(pre_norm, [](EncoderFamily& f) { f.of(Role::windows) = floats_of(1, 1, {1.0F}); }, "must have 2 floats");
  for (const float window : {-1.0F, 0.5F, 1e9F, std::numeric_limits<float>::quiet_NaN()}) {
    refuses(
        pre_norm, [&](EncoderFamily& f) { f.of(Role::windows) = floats_of(2, 1, {0.0F, window}); },
        "the window of layer 1 must be a whole number from 0 to 2^24");
  }
}

}  // namespace

int main() {
  refuses_models_that_do_not_fit();
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const Layout layout : {Layout::sell_f32, Layout::csr_f32, Layout::dense_f32}) {
      for (const auto& make :
           {int8_tables, projected, biased, disentangled, disentangled_in_windows, pre_norm, mixed, without_layers}) {
        computes(make(layout));
        pools_first_tokens(make(layout));
      }
    }
  }
  return check::result();
}
