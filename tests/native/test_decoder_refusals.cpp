// Compiled decoders that contradict themselves are refused, and calls that a decoder has no answer to.
#include "check.h"
#include "decoder_families.h"
#include "model/decoder.h"
#include "model/encoder.h"

using namespace sparsekit;

namespace {

constexpr Layout kLayout = Layout::csr_f32;
constexpr const char* kShape = "does not fit the tensors around it";

void open(const AlignedBytes& file) { const Decoder decoder(CompiledFile(file.data.get(), file.size)); }

void open_with(Role role, std::uint32_t layer, Tensor tensor) {
  DecoderFamily family = gemma(kLayout);
  family.of(role, layer) = std::move(tensor);
  open(family.file());
}

void open_with(Role role, Tensor tensor) { open_with(role, kNoLayer, std::move(tensor)); }

template <class Change>
void open_optioned(const Change& change) {
  DecoderFamily family = gemma(kLayout);
  change(family.options);
  open(family.file());
}

void refuses_sizes() {
  const auto weight = [](std::int64_t rows, std::int64_t columns) { return sparse_tensor(rows, columns, 1, kLayout); };
  const auto vector = [](std::int64_t size) { return float_tensor(size, 1, 1); };
  CHECK_THROWS(open_with(Role::query, 1, weight(24, kFeatures)), "whole heads");
  CHECK_THROWS(open_with(Role::query, 0, weight(32, kFeatures + 1)), kShape);
  CHECK_THROWS(open_with(Role::key, 0, weight(12, kFeatures)), kShape);
  CHECK_THROWS(open_with(Role::value, 1, weight(8, kFeatures)), kShape);
  CHECK_THROWS(open_with(Role::attention_output, 1, weight(kFeatures, 24)), kShape);
  CHECK_THROWS(open_with(Role::up, 1, weight(kHidden + 1, kFeatures)), kShape);
  CHECK_THROWS(open_with(Role::gate, 1, weight(kHidden, kFeatures - 1)), kShape);
  CHECK_THROWS(open_with(Role::down, 1, weight(kFeatures, 34)), kShape);
  CHECK_THROWS(open_with(Role::head, weight(kVocabulary + 1, kFeatures)), kShape);
  CHECK_THROWS(open_with(Role::head_bias, vector(49)), "must have 50 floats");
  CHECK_THROWS(open_with(Role::query_bias, 0, vector(31)), "must have 32 floats");
  CHECK_THROWS(open_with(Role::final_norm_weight, vector(23)), "must have 24 floats");
  CHECK_THROWS(open_with(Role::final_norm_bias, vector(23)), "must have 24 floats");
  CHECK_THROWS(open_with(Role::query_norm_weight, 0, vector(9)), "must have 32 floats");
  CHECK_THROWS(open_with(Role::key_norm_weight, 0, vector(5)), "must have 8 floats");
  CHECK_THROWS(open_with(Role::attention_post_norm_weight, 1, vector(8)), "must have 24 floats");
  CHECK_THROWS(open_with(Role::feed_forward_post_norm_weight, 1, vector(8)), "must have 24 floats");
  CHECK_THROWS(open_with(Role::position_embeddings, float_tensor(9, kFeatures - 1, 1)), "must have 24 columns");
  CHECK_THROWS(open_with(Role::rotary, float_tensor(9, 10, 1)), "even number of columns");
  CHECK_THROWS(open_with(Role::local_rotary, float_tensor(9, 7, 1)), "even number of columns");
  CHECK_THROWS(open_with(Role::rotary, float_tensor(0, kHeadDim, 1)), "no position for a token");
}

void refuses_numbers() {
  const auto numbers = [](Role role, const std::vector<float>& values) {
    open_with(role, floats_of(static_cast<std::int64_t>(values.size()), 1, values));
  };
  CHECK_THROWS(numbers(Role::windows, {5.0F}), "must have 2 floats");
  for (const float window : {-1.0F, 2.5F, 1e9F, NAN}) {
    CHECK_THROWS(numbers(Role::windows, {window, 0.0F}), "must be a whole number");
  }
  for (const float kind : {-1.0F, 0.5F, 3.0F, NAN}) {
    CHECK_THROWS(numbers(Role::rotary_kinds, {0.0F, kind}), "layer 1 is turned by a table that is not there");
  }
  CHECK_THROWS(numbers(Role::rotary_kinds, {0.0F, 0.0F, 0.0F}), "must have 2 floats");
}

/// In the layouts of linear layers, which no embedding is looked up in, and in those of tables, which have no kernels.
void refuses_embeddings() {
  const auto shared = [](Tensor words) { open_with(Role::word_embeddings, std::move(words)); };
  CHECK_THROWS(shared(float_tensor(kVocabulary, kFeatures, 1)), "must be a packed weight");
  CHECK_THROWS(shared(int8_table(kVocabulary, kFeatures, 1)), "must be a packed weight");
  CHECK_THROWS(shared(sparse_tensor(kVocabulary, kFeatures, 1, Layout::sell_f32)), "dense");
}

void refuses_options() {
  CHECK_THROWS(open_optioned([](auto& options) { options.layers = 3; }), "tensor 13 must have 3 floats");
  CHECK_THROWS(open_optioned([](auto& options) { options.layers = -1; }), "negative");
  CHECK_THROWS(open_optioned([](auto& options) { options.head_dim = 0; }), "negative");
  CHECK_THROWS(open_optioned([](auto& options) { options.norm = 2; }), "unknown norm");
  CHECK_THROWS(open_optioned([](auto& options) { options.norm = -1; }), "unknown norm");
  CHECK_THROWS(open_optioned([](auto& options) { options.parallel = 2; }), "parallel must be 0 or 1");
  CHECK_THROWS(open_optioned([](auto& options) { options.activation = 5; }), "unknown activation function");
  CHECK_THROWS(open_optioned([](auto& options) { options.activation = -1; }), "unknown activation function");
  CHECK_THROWS(open_optioned([](auto& options) { options.attention_cap = -1.0F; }), "caps must not be negative");
  CHECK_THROWS(open_optioned([](auto& options) { options.logit_cap = -1.0F; }), "caps must not be negative");
  CHECK_THROWS(open_optioned([](auto& options) { options.norm_eps = 0.0F; }), "numbers must be finite");
  CHECK_THROWS(open_optioned([](auto& options) { options.embedding_scale = NAN; }), "numbers must be finite");
  CHECK_THROWS(open_optioned([](auto& options) { options.attention_scale = INFINITY; }), "numbers must be finite");
  CHECK_THROWS(open_optioned([](auto& options) { options.reserved = 1; }), "reserved");
}

/// Each tensor of the model taken out: those that it may lack are gates, norms of a layer, biases and what positions
/// have left.
void refuses_without_tensors() {
  constexpr Role kNeeded[] = {Role::word_embeddings, Role::final_norm_weight, Role::query, Role::key,
                              Role::value,           Role::attention_output,  Role::up,    Role::down};
  for (const auto& [name, make] : kDecoders) {
    const DecoderFamily whole = make(kLayout);
    for (const auto& [key, tensor] : whole.tensors) {
      if (std::ranges::find(kNeeded, key.second) == std::end(kNeeded)) continue;
      DecoderFamily family = whole;
      family.tensors.erase(key);
      CHECK_THROWS(open(family.file()), "is missing");
    }
  }
  DecoderFamily family = gemma(kLayout);
  family.tensors.erase({1, Role::gate});
  family.tensors.erase({0, Role::query_norm_weight});
  family.tensors.erase({0, Role::key_norm_weight});
  family.tensors.erase({1, Role::attention_post_norm_weight});
  family.tensors.erase({kNoLayer, Role::windows});
  open(family.file());
  family.tensors.erase({kNoLayer, Role::local_rotary});
  CHECK_THROWS(open(family.file()), "layer 0 is turned by a table that is not there");
  family.tensors.erase({kNoLayer, Role::rotary_kinds});
  open(family.file());
  family.tensors.erase({kNoLayer, Role::rotary});
  CHECK_THROWS(open(family.file()), "neither position embeddings nor rotary ones");
}

void refuses_other_kinds() {
  const auto open_encoder = [](const AlignedBytes& file) { Encoder(CompiledFile(file.data.get(), file.size)); };
  CHECK_THROWS(open(compiled(small_encoder(kLayout), small_options())), "no decoder; open an encoder with Encoder");
  AlignedBytes file = llama(kLayout).file();
  CHECK_THROWS(open_encoder(file), "no encoder; open a language model with Generator");
  const std::uint32_t unknown = 2;
  std::memcpy(file.data.get() + offsetof(CompiledHeader, kind), &unknown, sizeof unknown);
  CHECK_THROWS(open(file), "unknown kind");
}

void refuses_inputs() {
  const AlignedBytes file = llama(kLayout).file();
  const Decoder decoder(CompiledFile(file.data.get(), file.size));
  CHECK(decoder.max_tokens() == kContext && decoder.vocabulary() == kVocabulary);
  constexpr std::int64_t kRows = 2 * kLayers * kKeyHeads;
  CHECK(decoder.cache_shape().bytes(DType::float32) == kRows * kHeadDim * 4);
  CHECK(decoder.cache_shape().bytes(DType::bfloat16) == kRows * kHeadDim * 2);
  CHECK(decoder.cache_shape().bytes(DType::int8) == kRows * (kHeadDim + 4));
  KeyValueCache cache(decoder.cache_shape(), kContext + 50);
  KeyValueCache second(decoder.cache_shape(), 3);
  KeyValueCache* const caches[] = {&cache, &second};
  const auto run = [&](const std::vector<std::int32_t>& ids, const std::vector<std::int64_t>& offsets) {
    std::vector<float> logits(2 * kVocabulary);
    const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
    decoder.run({ids.data(), {offsets.data(), count}, caches}, LogitsOf::last, logits.data());
  };
  run({}, {0});
  CHECK_THROWS(run({1, 50}, {0, 2}), "ids must be from 0 to 49, got 50 at 1");
  CHECK_THROWS(run({-1, 5}, {0, 2}), "ids must be from 0 to 49, got -1 at 0");
  CHECK_THROWS(run({1, 2}, {1, 2}), "offsets must start at 0");
  CHECK_THROWS(run({1, 2}, {0, 2, 2}), "sequence 1 must have from 1 to 3 new tokens, got 0");
  CHECK_THROWS(run({1, 2}, {0, 2, 1}), "sequence 1 must have from 1 to 3 new tokens, got -1");
  CHECK_THROWS(run({1, 2, 3, 4, 5}, {0, 1, 5}), "sequence 1 must have from 1 to 3 new tokens, got 4");
  CHECK_THROWS(run(std::vector<std::int32_t>(701), {0, 701}), "sequence 0 must have from 1 to 700 new tokens, got 701");
  CHECK(cache.tokens() == 0 && second.tokens() == 0);
  CacheShape shape = decoder.cache_shape();
  shape.heads[1] = 1;
  KeyValueCache foreign(shape, 10);
  KeyValueCache* const foreign_ones[] = {&foreign};
  const std::int32_t id = 1;
  const std::int64_t offsets[] = {0, 1};
  std::vector<float> logits(kVocabulary);
  CHECK_THROWS(decoder.run({&id, {offsets, 1}, foreign_ones}, LogitsOf::last, logits.data()), "is of another model");
  CHECK_THROWS(foreign.copy(cache, 0), "caches of different models");
  KeyValueCache rounded(decoder.cache_shape(), 10, DType::bfloat16);
  CHECK_THROWS(rounded.copy(cache, 0), "caches of different types, bfloat16 and float32");
  CHECK_THROWS(KeyValueCache(decoder.cache_shape(), 10, DType::float16), "bfloat16 or int8, got 'float16'");
  run(std::vector<std::int32_t>(700), {0, 700});
  CHECK_THROWS(run({1}, {0, 1}), "from 1 to 0 new tokens, got 1");
}

}  // namespace

int main() {
  refuses_sizes();
  refuses_numbers();
  refuses_embeddings();
  refuses_options();
  refuses_without_tensors();
  refuses_other_kinds();
  refuses_inputs();
  return check::result();
}
