// An encoder in double precision, and what compares a whole one with it.
#pragma once

#include <algorithm>

#include "check.h"
#include "compiled_model.h"
#include "model/encoder.h"

using Doubles = std::vector<double>;

/// Computes what docs/compiled-model.md says, one number after the other.
class Exact {
 public:
  Exact(const Tensors& tensors, const sparsekit::EncoderOptions& options) : tensors_(tensors), options_(options) {}

  /// Hidden states of one sequence, [tokens, features].
  Doubles run(const std::int32_t* ids, const std::int32_t* types, std::int64_t tokens) const {
    Doubles x = embed(ids, types, tokens);
    const bool pre_norm = options_.block_order == static_cast<std::int32_t>(sparsekit::BlockOrder::pre_norm);
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(options_.layers); ++i) {
      pre_norm ? pre_norm_layer(x, i, tokens) : post_norm_layer(x, i, tokens);
    }
    if (pre_norm) norm(x, kNone, Role::final_norm_weight, Role::final_norm_bias);
    return x;
  }

  /// Logits of rows of features.
  Doubles head(const Doubles& rows) const {
    if (tensors_.find({kNone, Role::head_dense}) == tensors_.end()) return classified(rows);
    Doubles hidden = linear(rows, kNone, Role::head_dense, Role::head_dense_bias);
    for (double& value : hidden) value = std::tanh(value);
    if (has(kNone, Role::head_norm_weight)) norm(hidden, kNone, Role::head_norm_weight, Role::head_norm_bias);
    return classified(hidden);
  }

 private:
  Doubles classified(const Doubles& rows) const { return linear(rows, kNone, Role::classifier, Role::classifier_bias); }

  static constexpr std::uint32_t kNone = sparsekit::kNoLayer;

  static std::size_t size(std::int64_t number) { return static_cast<std::size_t>(number); }

  bool has(std::uint32_t layer, Role role) const { return tensors_.contains({layer, role}); }

  /// 0 where there is no such tensor.
  double number(std::uint32_t layer, Role role, std::int64_t i) const {
    const auto found = tensors_.find({layer, role});
    return found == tensors_.end() ? 0.0 : static_cast<double>(found->second.dense[size(i)]);
  }

  Doubles embed(const std::int32_t* ids, const std::int32_t* types, std::int64_t tokens) const {
    const std::int64_t width = tensors_.at({kNone, Role::word_embeddings}).columns;
    Doubles x;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t f = 0; f < width; ++f) {
        x.push_back(number(kNone, Role::word_embeddings, ids[t] * width + f) +
                    number(kNone, Role::position_embeddings, (t + options_.first_position) * width + f) +
                    number(kNone, Role::type_embeddings, types[t] * width + f));
      }
    }
    if (has(kNone, Role::embedding_norm_weight)) {
      norm(x, kNone, Role::embedding_norm_weight, Role::embedding_norm_bias);
    }
    if (!has(kNone, Role::embedding_projection)) return x;
    Doubles projected = linear(x, kNone, Role::embedding_projection, Role::embedding_projection_bias);
    if (has(kNone, Role::projection_norm_weight)) {
      norm(projected, kNone, Role::projection_norm_weight, Role::projection_norm_bias);
    }
    return projected;
  }

  void post_norm_layer(Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    add(x, attend(x, layer, tokens));
    norm(x, layer, Role::attention_norm_weight, Role::attention_norm_bias);
    add(x, feed_forward(x, layer));
    norm(x, layer, Role::output_norm_weight, Role::output_norm_bias);
  }

  void pre_norm_layer(Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    Doubles y = x;
    if (has(layer, Role::attention_norm_weight)) {
      norm(y, layer, Role::attention_norm_weight, Role::attention_norm_bias);
    }
    add(x, attend(y, layer, tokens));
    y = x;
    norm(y, layer, Role::output_norm_weight, Role::output_norm_bias);
    add(x, feed_forward(y, layer));
  }

  Doubles feed_forward(const Doubles& x, std::uint32_t layer) const {
    Doubles hidden = linear(x, layer, Role::up, Role::up_bias);
    for (double& value : hidden) value *= 0.5 * std::erfc(-value / std::sqrt(2.0));
    if (has(layer, Role::gate)) {
      const Doubles gate = linear(x, layer, Role::gate, Role::gate_bias);
      for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] *= gate[i];
    }
    return linear(hidden, layer, Role::down, Role::down_bias);
  }

  Doubles linear(const Doubles& x, std::uint32_t layer, Role weight, Role bias) const {
    const Tensor& tensor = tensors_.at({layer, weight});
    const auto tokens = static_cast<std::int64_t>(x.size()) / tensor.columns;
    Doubles output;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < tensor.rows; ++r) {
        double sum = number(layer, bias, r);
        for (std::int64_t c = 0; c < tensor.columns; ++c) {
          sum += number(layer, weight, r * tensor.columns + c) * x[size(t * tensor.columns + c)];
        }
        output.push_back(sum);
      }
    }
    return output;
  }

  Doubles attend(const Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    Doubles query = linear(x, layer, Role::query, Role::query_bias);
    Doubles key = linear(x, layer, Role::key, Role::key_bias);
    const Doubles value = linear(x, layer, Role::value, Role::value_bias);
    const double window = number(kNone, Role::windows, layer);
    const bool local = window > 0 && has(kNone, Role::local_rotary);
    for (Doubles* rotated : {&query, &key}) rotate(*rotated, local ? Role::local_rotary : Role::rotary, tokens);
    const std::int64_t width = tensors_.at({layer, Role::query}).rows;
    Doubles output(query.size(), 0.0);
    for (std::int64_t head = 0; head < width / options_.head_dim; ++head) {
      for (std::int64_t q = 0; q < tokens; ++q) {
        Doubles weights(size(tokens), 0.0);
        double total = 0.0;
        for (std::int64_t k = 0; k < tokens; ++k) {
          if (window > 0 && std::fabs(static_cast<double>(q - k)) > window) continue;
          total += weights[size(k)] = std::exp(score(query, key, layer, head, q, k));
        }
        for (std::int64_t k = 0; k < tokens; ++k) {
          for (std::int64_t f = head * options_.head_dim; f < (head + 1) * options_.head_dim; ++f) {
            output[size(q * width + f)] += weights[size(k)] / total * value[size(k * width + f)];
          }
        }
      }
    }
    return linear(output, layer, Role::attention_output, Role::attention_output_bias);
  }

  double score(const Doubles& query, const Doubles& key, std::uint32_t layer, std::int64_t head, std::int64_t q,
               std::int64_t k) const {
    const std::int64_t width = tensors_.at({layer, Role::query}).rows;
    const std::int64_t row = row_of(q - k);
    double product = 0.0;
    for (std::int64_t f = head * options_.head_dim; f < (head + 1) * options_.head_dim; ++f) {
      const double one = query[size(q * width + f)];
      const double other = key[size(k * width + f)];
      product += one * other + one * number(layer, Role::position_key, row * width + f) +
                 other * number(layer, Role::position_query, row * width + f);
    }
    product *= static_cast<double>(options_.attention_scale);
    if (!has(kNone, Role::distance_biases)) return product;
    const std::int64_t columns = tensors_.at({kNone, Role::distance_biases}).columns;
    return product + number(kNone, Role::distance_biases, head * columns + q - k + columns / 2);
  }

  /// Of a layer's tables, for a distance; 0 where there are none.
  std::int64_t row_of(std::int64_t distance) const {
    if (!has(kNone, Role::distance_rows)) return 0;
    const std::int64_t middle = tensors_.at({kNone, Role::distance_rows}).rows / 2;
    return static_cast<std::int64_t>(number(kNone, Role::distance_rows, distance + middle));
  }

  /// Every pair of features of every head, where there is such a table.
  void rotate(Doubles& x, Role role, std::int64_t tokens) const {
    if (tokens == 0 || !has(kNone, role)) return;
    const std::int64_t half = options_.head_dim / 2;
    const std::int64_t width = static_cast<std::int64_t>(x.size()) / tokens;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t f = 0; f < width; ++f) {
        if (f % options_.head_dim >= half) continue;
        const std::int64_t at = t * options_.head_dim + f % options_.head_dim;
        const double cosine = number(kNone, role, at);
        const double sine = number(kNone, role, at + half);
        const double one = x[size(t * width + f)];
        const double other = x[size(t * width + f + half)];
        x[size(t * width + f)] = one * cosine - other * sine;
        x[size(t * width + f + half)] = other * cosine + one * sine;
      }
    }
  }

  static void add(Doubles& x, const Doubles& other) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += other[i];
  }

  void norm(Doubles& x, std::uint32_t layer, Role weight, Role bias) const {
    const std::size_t width = tensors_.at({layer, weight}).dense.size();
    const auto count = static_cast<double>(width);
    for (std::size_t row = 0; row < x.size(); row += width) {
      double mean = 0.0;
      double variance = 0.0;
      for (std::size_t f = 0; f < width; ++f) mean += x[row + f] / count;
      for (std::size_t f = 0; f < width; ++f) variance += (x[row + f] - mean) * (x[row + f] - mean) / count;
      const double scale = 1.0 / std::sqrt(variance + static_cast<double>(options_.norm_eps));
      for (std::size_t f = 0; f < width; ++f) {
        const auto i = static_cast<std::int64_t>(f);
        x[row + f] = (x[row + f] - mean) * scale * number(layer, weight, i) + number(layer, bias, i);
      }
    }
  }

  const Tensors& tensors_;
  sparsekit::EncoderOptions options_;
};

/// Sequences of 1, 7, 0, 18 and 3 tokens, `times` times.
struct Batch {
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> types;

  explicit Batch(std::int64_t times = 1) {
    for (std::int64_t i = 0; i < times; ++i) {
      for (const std::int64_t tokens : {1, 7, 0, 18, 3}) offsets.push_back(offsets.back() + tokens);
    }
    for (std::int32_t i = 0; i < offsets.back(); ++i) {
      ids.push_back(i % 29 * 31 % static_cast<std::int32_t>(kVocabulary));
      types.push_back(i % 29 % 3 == 0 ? 1 : 0);
    }
  }
  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  sparsekit::EncoderInput input() const { return {ids.data(), types.data(), {offsets.data(), count()}}; }
};

inline double furthest(const Doubles& expected, const float* found) {
  double most = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    most = std::max(most, std::fabs(expected[i] - static_cast<double>(found[i])));
  return most;
}

/// Numbers are about 1 after every norm, sums have up to 40 terms: 2e-5 is about 170 roundings of the last bit.
inline constexpr double kTolerance = 2e-5;

/// All sequences of a batch at once, and each alone.
inline void computes_hidden_states(const Tensors& tensors, const sparsekit::EncoderOptions& options,
                                   const sparsekit::Encoder& encoder) {
  const Batch batch;
  const bool typed = tensors.contains({sparsekit::kNoLayer, Role::type_embeddings});
  const std::int32_t* types = typed ? batch.types.data() : nullptr;
  std::vector<float> output(29 * kFeatures, 7.0F);
  encoder.run({batch.ids.data(), types, batch.input().sequences}, output.data());
  const Exact exact(tensors, options);
  for (std::size_t i = 0; i < 5; ++i) {
    const std::int64_t first = batch.offsets[i];
    const std::int64_t tokens = batch.offsets[i + 1] - first;
    const Doubles expected = exact.run(batch.ids.data() + first, batch.types.data() + first, tokens);
    CHECK(furthest(expected, output.data() + first * kFeatures) < kTolerance);
    std::vector<float> alone(static_cast<std::size_t>(tokens * kFeatures), 7.0F);
    const std::int64_t offsets[] = {0, tokens};
    encoder.run({batch.ids.data() + first, typed ? types + first : nullptr, {offsets, 1}}, alone.data());
    CHECK(furthest(expected, alone.data()) < kTolerance);
  }
}
