// A whole encoder with every instruction set against double precision: sequences of all lengths at once and alone,
// heads and neurons removed, pooling; compiled models that contradict themselves are refused.
#include "check.h"
#include "exact_encoder.h"
#include "model/encoder.h"
#include "operators/instruction_set.h"

using namespace sparsekit;

namespace {

/// The batch twenty times: more tokens than go through the layers together.
void computes_large_batches(const Encoder& encoder) {
  constexpr std::int64_t kTimes = 20;
  const Batch batch;
  std::vector<float> expected(29 * kFeatures);
  encoder.run(batch.input(), expected.data());
  std::vector<float> output(kTimes * 29 * kFeatures, 7.0F);
  const Batch many(kTimes);
  encoder.run(many.input(), output.data());
  const Doubles exact(expected.begin(), expected.end());
  for (std::int64_t i = 0; i < kTimes; ++i) {
    CHECK(furthest(exact, output.data() + i * 29 * kFeatures) < 2 * kTolerance);
  }
}

void pools(const Encoder& encoder) {
  const Batch batch;
  std::vector<float> states(29 * kFeatures);
  std::vector<float> vectors(5 * kFeatures, 7.0F);
  encoder.run(batch.input(), states.data());
  encoder.encode(batch.input(), vectors.data());
  std::vector<float> expected(5 * kFeatures);
  pool(Pooling::mean, states.data(), kFeatures, batch.input().sequences, expected.data());
  normalize_rows(expected.data(), 5, kFeatures);
  CHECK(same_bits(vectors, expected));
  double square = 0.0;
  for (std::int64_t f = 0; f < kFeatures; ++f)
    square += static_cast<double>(vectors[static_cast<std::size_t>(f)]) *
              static_cast<double>(vectors[static_cast<std::size_t>(f)]);
  CHECK(std::fabs(square - 1.0) < 1e-5);
  CHECK(
      std::all_of(vectors.begin() + 2 * kFeatures, vectors.begin() + 3 * kFeatures, [](float v) { return v == 0.0F; }));
}

void open(const AlignedBytes& file) { const Encoder encoder(CompiledFile(file.data.get(), file.size)); }

/// A head of two layers on the first token of each sequence, a head of one layer on each token.
void gives_labels(Tensors tensors, Layout layout) {
  const Batch batch;
  EncoderOptions options = small_options();
  const auto labels_of = [&](Task task, Pooling pooling, std::int64_t rows) {
    options.normalize = 0;
    options.task = static_cast<std::int32_t>(task);
    options.pooling = static_cast<std::int32_t>(pooling);
    const AlignedBytes file = compiled(tensors, options);
    const Encoder encoder(CompiledFile(file.data.get(), file.size));
    CHECK(encoder.outputs() == 5);
    std::vector<float> logits(static_cast<std::size_t>(rows * 5), 7.0F);
    encoder.encode(batch.input(), logits.data());
    return logits;
  };
  const auto states_of = [&](std::size_t i, std::int64_t tokens) {
    return Exact(tensors, options)
        .run(batch.ids.data() + batch.offsets[i], batch.types.data() + batch.offsets[i], tokens);
  };
  tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, kFeatures, 62, layout);
  const std::vector<float> of_tokens = labels_of(Task::token_classification, Pooling::none, 29);
  CHECK(furthest(Exact(tensors, options).head(states_of(3, 18)), of_tokens.data() + std::size_t{8} * 5) < kTolerance);

  tensors[{kNoLayer, Role::head_dense}] = sparse_tensor(30, kFeatures, 60, layout);
  tensors[{kNoLayer, Role::head_dense_bias}] = float_tensor(30, 1, 61);
  tensors[{kNoLayer, Role::head_norm_weight}] = float_tensor(30, 1, 63, 1.0F);
  tensors[{kNoLayer, Role::head_norm_bias}] = float_tensor(30, 1, 64);
  tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, 30, 62, layout);
  options.head_activation = static_cast<std::int32_t>(HeadActivation::tanh);
  const std::vector<float> of_sequences = labels_of(Task::classification, Pooling::cls, 5);
  Doubles first = states_of(3, 18);
  first.resize(kFeatures);
  CHECK(furthest(Exact(tensors, options).head(first), of_sequences.data() + std::size_t{3} * 5) < kTolerance);
}

void refuses_heads() {
  const auto opened = [](std::int32_t task, Pooling pooling, std::int32_t activation, std::int64_t columns) {
    Tensors tensors = small_encoder(Layout::sell_f32);
    EncoderOptions options = small_options();
    options.task = task;
    options.pooling = static_cast<std::int32_t>(pooling);
    options.head_activation = activation;
    if (columns > 0) tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, columns, 1, Layout::sell_f32);
    open(compiled(tensors, options));
  };
  opened(1, Pooling::cls, 5, kFeatures);
  CHECK_THROWS(opened(3, Pooling::cls, 0, kFeatures), "unknown task");
  CHECK_THROWS(opened(1, Pooling::cls, 6, kFeatures), "unknown activation of a head");
  CHECK_THROWS(opened(1, Pooling::none, 0, kFeatures), "need a pooling");
  CHECK_THROWS(opened(2, Pooling::mean, 0, kFeatures), "are not pooled");
  CHECK_THROWS(opened(1, Pooling::cls, 0, 0), "belong together");
  CHECK_THROWS(opened(0, Pooling::cls, 0, kFeatures), "belong together");
  CHECK_THROWS(opened(1, Pooling::cls, 0, kFeatures + 1), "does not fit the tensors around it");
}

void refuses_inputs(const Encoder& encoder) {
  Batch batch;
  std::vector<float> output(29 * kFeatures);
  const auto run = [&] { encoder.run(batch.input(), output.data()); };
  batch.ids[5] = static_cast<std::int32_t>(kVocabulary);
  CHECK_THROWS(run(), "ids must be from 0 to 49, got 50 at 5");
  batch.ids[5] = 1;
  batch.types[3] = -1;
  CHECK_THROWS(run(), "token types must be from 0 to 1, got -1 at 3");
  batch.types[3] = 0;
  batch.offsets = {0, 1, 8, 8, 27, 29};
  CHECK_THROWS(run(), "from 0 to 18 tokens, got 19 in sequence 3");
  batch.offsets = {0, 9, 8, 8, 26, 29};
  CHECK_THROWS(run(), "got -1 in sequence 1");
}

template <class Field>
AlignedBytes changed(const AlignedBytes& good, std::size_t at, Field value) {
  AlignedBytes bad(good);
  std::memcpy(bad.data.get() + at, &value, sizeof value);
  set_checksums(bad);
  return bad;
}

/// Entry 0 is the query of layer 0, those without a layer come last.
void refuses_damage(const AlignedBytes& good) {
  constexpr std::size_t first = sizeof(CompiledHeader);
  const auto refuses = [&](std::size_t at, auto value, const char* why) {
    CHECK_THROWS(open(changed(good, at, value)), why);
  };
  refuses(0, std::uint64_t{1}, "not a compiled model");
  refuses(offsetof(CompiledHeader, version), std::uint32_t{9}, "of version 1, got 9");
  refuses(offsetof(CompiledHeader, total_bytes), std::uint64_t{64}, "says it has 64 bytes");
  refuses(offsetof(CompiledHeader, reserved), std::uint32_t{1}, "reserved");
  refuses(first + offsetof(TensorEntry, layer), std::uint32_t{5}, "not sorted");
  refuses(first + offsetof(TensorEntry, kind), std::uint32_t{7}, "unknown way");
  refuses(first + offsetof(TensorEntry, rows), std::int64_t{23}, "another shape than its packed weight");
  refuses(first + offsetof(TensorEntry, rows), std::int64_t{-1}, "impossible sizes");
  refuses(first + offsetof(TensorEntry, columns), std::int64_t{1} << 40, "impossible sizes");
  refuses(first + offsetof(TensorEntry, start), std::uint64_t{0}, "does not lie behind");
  refuses(first + offsetof(TensorEntry, bytes), std::uint64_t{1} << 60, "does not lie behind");
  refuses(offsetof(CompiledHeader, tensors), std::uint32_t{0xFFFFFFFF}, "more tensors than fit");
  constexpr std::size_t options = offsetof(CompiledHeader, encoder);
  refuses(options + offsetof(EncoderOptions, layers), 3, "is missing");
  refuses(options + offsetof(EncoderOptions, layers), -1, "negative");
  refuses(options + offsetof(EncoderOptions, head_dim), 7, "part of a head");
  refuses(options + offsetof(EncoderOptions, first_position), 20, "no position for a token");
  refuses(options + offsetof(EncoderOptions, activation), 9, "unknown activation function");
  refuses(options + offsetof(EncoderOptions, pooling), 9, "unknown pooling");
  refuses(options + offsetof(EncoderOptions, norm_eps), 0.0F, "numbers must be finite");
  AlignedBytes other(good);
  other.data.get()[first + 8] ^= std::byte{1};
  CHECK_THROWS(open(other), "its list of tensors has another checksum");
  other.data.get()[first + 8] ^= std::byte{1};
  other.data.get()[other.size - 64] ^= std::byte{1};
  CHECK_THROWS(open(other), "tensor 5 has another checksum");
}

void refuses_tensors_that_do_not_fit() {
  const auto with = [](std::uint32_t layer, Role role, Tensor tensor) {
    Tensors tensors = small_encoder(Layout::sell_f32);
    tensors[{layer, role}] = std::move(tensor);
    return compiled(tensors, small_options());
  };
  const char* shape = "does not fit the tensors around it";
  CHECK_THROWS(open(with(0, Role::key, sparse_tensor(16, kFeatures, 1, Layout::sell_f32))), shape);
  CHECK_THROWS(open(with(1, Role::down, sparse_tensor(kFeatures, 34, 1, Layout::sell_f32))), shape);
  CHECK_THROWS(open(with(1, Role::up, float_tensor(33, kFeatures, 1))), "must be a packed weight");
  CHECK_THROWS(open(with(0, Role::up_bias, float_tensor(41, 1, 1))), "must have 40 floats");
  CHECK_THROWS(open(with(kNoLayer, Role::type_embeddings, float_tensor(2, 25, 1))), "must have 24 columns");
  CHECK_THROWS(open(with(kNoLayer, Role::type_embeddings, float_tensor(0, 24, 1))), "has no rows");
  Tensor table = int8_table(2, kFeatures, 1);
  table.bytes[8] = std::byte{128};
  CHECK_THROWS(open(with(kNoLayer, Role::type_embeddings, table)), "got -128");
  Tensor weight = sparse_tensor(33, kFeatures, 1, Layout::sell_f32);
  weight.bytes[200] ^= std::byte{255};
  CHECK_THROWS(open(with(1, Role::up, weight)), "the packed weight");
}

void computes_checksums() {
  const char* text = "123456789";
  CHECK(crc32(reinterpret_cast<const std::byte*>(text), 9) == 0xCBF43926);
  CHECK(crc32(nullptr, 0) == 0);
}

}  // namespace

int main() {
  computes_checksums();
  refuses_tensors_that_do_not_fit();
  refuses_heads();
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const Layout layout : {Layout::sell_f32, Layout::csr_f32, Layout::dense_f32}) {
      const Tensors tensors = small_encoder(layout);
      const AlignedBytes file = compiled(tensors, small_options());
      const Encoder encoder(CompiledFile(file.data.get(), file.size));
      computes_hidden_states(tensors, small_options(), encoder);
      computes_large_batches(encoder);
      pools(encoder);
      gives_labels(tensors, layout);
      refuses_inputs(encoder);
      refuses_damage(file);
    }
  }
  return check::result();
}
