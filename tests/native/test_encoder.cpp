// A whole encoder with every instruction set against double precision: sequences of all lengths at once and alone,
// heads and neurons removed, pooling; compiled models that contradict themselves are refused.
#include "check.h"
#include "compiled_model.h"
#include "model/encoder.h"
#include "operators/instruction_set.h"

using namespace sparsekit;

namespace {

using Doubles = std::vector<double>;

/// The encoder in double precision.
class Exact {
 public:
  explicit Exact(const Tensors& tensors) : tensors_(tensors), options_(small_options()) {}

  /// Hidden states of one sequence, [tokens, features].
  Doubles run(const std::int32_t* ids, const std::int32_t* types, std::int64_t tokens) const {
    Doubles x(static_cast<std::size_t>(tokens * kFeatures));
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t f = 0; f < kFeatures; ++f) {
        x[at(t, f)] = number(kNoLayer, Role::word_embeddings, ids[t] * kFeatures + f) +
                      number(kNoLayer, Role::position_embeddings, (t + options_.first_position) * kFeatures + f) +
                      number(kNoLayer, Role::type_embeddings, types[t] * kFeatures + f);
      }
    }
    norm(x, kNoLayer, Role::embedding_norm_weight, Role::embedding_norm_bias);
    for (std::uint32_t i = 0; i < 2; ++i) {
      add(x, linear(attention(x, i, tokens), i, Role::attention_output, Role::attention_output_bias));
      norm(x, i, Role::attention_norm_weight, Role::attention_norm_bias);
      Doubles hidden = linear(x, i, Role::up, Role::up_bias);
      for (double& value : hidden) value *= 0.5 * std::erfc(-value / std::sqrt(2.0));
      add(x, linear(hidden, i, Role::down, Role::down_bias));
      norm(x, i, Role::output_norm_weight, Role::output_norm_bias);
    }
    return x;
  }

  /// Logits of rows of features.
  Doubles head(const Doubles& rows) const {
    if (tensors_.find({kNoLayer, Role::head_dense}) == tensors_.end()) return classified(rows);
    Doubles hidden = linear(rows, kNoLayer, Role::head_dense, Role::head_dense_bias);
    for (double& value : hidden) value = std::tanh(value);
    return classified(hidden);
  }

 private:
  Doubles classified(const Doubles& rows) const {
    return linear(rows, kNoLayer, Role::classifier, Role::classifier_bias);
  }

  static std::size_t at(std::int64_t token, std::int64_t feature) {
    return static_cast<std::size_t>(token * kFeatures + feature);
  }

  double number(std::uint32_t layer, Role role, std::int64_t i) const {
    const auto found = tensors_.find({layer, role});
    return found == tensors_.end() ? 0.0 : static_cast<double>(found->second.dense[static_cast<std::size_t>(i)]);
  }

  Doubles linear(const Doubles& x, std::uint32_t layer, Role weight, Role bias) const {
    const Tensor& tensor = tensors_.at({layer, weight});
    const auto tokens = static_cast<std::int64_t>(x.size()) / tensor.columns;
    Doubles output;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < tensor.rows; ++r) {
        double sum = number(layer, bias, r);
        for (std::int64_t c = 0; c < tensor.columns; ++c) {
          sum += number(layer, weight, r * tensor.columns + c) * x[static_cast<std::size_t>(t * tensor.columns + c)];
        }
        output.push_back(sum);
      }
    }
    return output;
  }

  Doubles attention(const Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    const Doubles query = linear(x, layer, Role::query, Role::query_bias);
    const Doubles key = linear(x, layer, Role::key, Role::key_bias);
    const Doubles value = linear(x, layer, Role::value, Role::value_bias);
    const std::int64_t width = tensors_.at({layer, Role::query}).rows;
    Doubles output(query.size(), 0.0);
    for (std::int64_t first = 0; first < width; first += options_.head_dim) {
      for (std::int64_t q = 0; q < tokens; ++q) {
        Doubles weights(static_cast<std::size_t>(tokens), 0.0);
        double total = 0.0;
        for (std::int64_t k = 0; k < tokens; ++k) {
          double score = 0.0;
          for (std::int64_t f = first; f < first + options_.head_dim; ++f) {
            score += query[static_cast<std::size_t>(q * width + f)] * key[static_cast<std::size_t>(k * width + f)];
          }
          total += weights[static_cast<std::size_t>(k)] =
              std::exp(score * static_cast<double>(options_.attention_scale));
        }
        for (std::int64_t k = 0; k < tokens; ++k) {
          for (std::int64_t f = first; f < first + options_.head_dim; ++f) {
            output[static_cast<std::size_t>(q * width + f)] +=
                weights[static_cast<std::size_t>(k)] / total * value[static_cast<std::size_t>(k * width + f)];
          }
        }
      }
    }
    return output;
  }

  static void add(Doubles& x, const Doubles& other) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += other[i];
  }

  void norm(Doubles& x, std::uint32_t layer, Role weight, Role bias) const {
    for (std::size_t row = 0; row < x.size(); row += kFeatures) {
      double mean = 0.0;
      double variance = 0.0;
      for (std::size_t f = 0; f < kFeatures; ++f) mean += x[row + f] / kFeatures;
      for (std::size_t f = 0; f < kFeatures; ++f) variance += (x[row + f] - mean) * (x[row + f] - mean) / kFeatures;
      const double scale = 1.0 / std::sqrt(variance + static_cast<double>(options_.norm_eps));
      for (std::size_t f = 0; f < kFeatures; ++f) {
        const auto i = static_cast<std::int64_t>(f);
        x[row + f] = (x[row + f] - mean) * scale * number(layer, weight, i) + number(layer, bias, i);
      }
    }
  }

  const Tensors& tensors_;
  EncoderOptions options_;
};

/// Sequences of 1, 7, 0, 18 and 3 tokens.
struct Batch {
  std::vector<std::int64_t> offsets{0, 1, 8, 8, 26, 29};
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> types;

  Batch() {
    for (std::int32_t i = 0; i < 29; ++i) {
      ids.push_back(i * 31 % static_cast<std::int32_t>(kVocabulary));
      types.push_back(i % 3 == 0 ? 1 : 0);
    }
  }
  EncoderInput input() const { return {ids.data(), types.data(), {offsets.data(), 5}}; }
};

double furthest(const Doubles& expected, const float* found) {
  double most = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    most = std::max(most, std::fabs(expected[i] - static_cast<double>(found[i])));
  return most;
}

/// Numbers are about 1 after every norm, sums have up to 40 terms: 2e-5 is about 170 roundings of the last bit.
constexpr double kTolerance = 2e-5;

void computes_hidden_states(const Tensors& tensors, const Encoder& encoder) {
  const Batch batch;
  std::vector<float> output(29 * kFeatures, 7.0F);
  encoder.run(batch.input(), output.data());
  const Exact exact(tensors);
  for (std::size_t i = 0; i < 5; ++i) {
    const std::int64_t first = batch.offsets[i];
    const std::int64_t tokens = batch.offsets[i + 1] - first;
    const Doubles expected = exact.run(batch.ids.data() + first, batch.types.data() + first, tokens);
    CHECK(furthest(expected, output.data() + first * kFeatures) < kTolerance);
    std::vector<float> alone(static_cast<std::size_t>(tokens * kFeatures), 7.0F);
    const std::int64_t offsets[] = {0, tokens};
    encoder.run({batch.ids.data() + first, batch.types.data() + first, {offsets, 1}}, alone.data());
    CHECK(furthest(expected, alone.data()) < kTolerance);
  }
}

/// The batch twenty times: more tokens than go through the layers together.
void computes_large_batches(const Encoder& encoder) {
  constexpr std::int64_t kTimes = 20;
  const Batch batch;
  std::vector<float> expected(29 * kFeatures);
  encoder.run(batch.input(), expected.data());
  Batch many;
  for (std::int64_t i = 1; i < kTimes; ++i) {
    for (std::size_t k = 1; k < batch.offsets.size(); ++k) many.offsets.push_back(29 * i + batch.offsets[k]);
    many.ids.insert(many.ids.end(), batch.ids.begin(), batch.ids.end());
    many.types.insert(many.types.end(), batch.types.begin(), batch.types.end());
  }
  std::vector<float> output(kTimes * 29 * kFeatures, 7.0F);
  encoder.run({many.ids.data(), many.types.data(), {many.offsets.data(), 5 * kTimes}}, output.data());
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
    return Exact(tensors).run(batch.ids.data() + batch.offsets[i], batch.types.data() + batch.offsets[i], tokens);
  };
  tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, kFeatures, 62, layout);
  const std::vector<float> of_tokens = labels_of(Task::token_classification, Pooling::none, 29);
  CHECK(furthest(Exact(tensors).head(states_of(3, 18)), of_tokens.data() + std::size_t{8} * 5) < kTolerance);

  tensors[{kNoLayer, Role::head_dense}] = sparse_tensor(30, kFeatures, 60, layout);
  tensors[{kNoLayer, Role::head_dense_bias}] = float_tensor(30, 1, 61);
  tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, 30, 62, layout);
  options.head_activation = static_cast<std::int32_t>(HeadActivation::tanh);
  const std::vector<float> of_sequences = labels_of(Task::classification, Pooling::cls, 5);
  Doubles first = states_of(3, 18);
  first.resize(kFeatures);
  CHECK(furthest(Exact(tensors).head(first), of_sequences.data() + std::size_t{3} * 5) < kTolerance);
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
    for (const Layout layout : {Layout::sell_f32, Layout::csr_f32}) {
      const Tensors tensors = small_encoder(layout);
      const AlignedBytes file = compiled(tensors, small_options());
      const Encoder encoder(CompiledFile(file.data.get(), file.size));
      computes_hidden_states(tensors, encoder);
      computes_large_batches(encoder);
      pools(encoder);
      gives_labels(tensors, layout);
      refuses_inputs(encoder);
      refuses_damage(file);
    }
  }
  return check::result();
}
