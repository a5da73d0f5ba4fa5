// Small random decoders as compiled models, and a decoder in double precision.
#pragma once

#include "check.h"
#include "compiled_model.h"
#include "model/decoder.h"

using Doubles = std::vector<double>;

inline constexpr std::int64_t kHeadDim = 8, kHeads = 4, kKeyHeads = 2, kHidden = 33, kLayers = 2, kContext = 700;

/// Computes what docs/compiled-model.md says, one number after the other.
class ExactDecoder {
 public:
  ExactDecoder(const Tensors& tensors, const sparsekit::DecoderOptions& options)
      : tensors_(tensors), options_(options) {}

  /// Logits of every token, [tokens, vocabulary].
  Doubles logits(const std::vector<std::int32_t>& ids) const {
    const auto tokens = static_cast<std::int64_t>(ids.size());
    Doubles x;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t f = 0; f < kFeatures; ++f) {
        const double word = number(kNone, Role::word_embeddings, ids[size(t)] * kFeatures + f);
        x.push_back(word * static_cast<double>(options_.embedding_scale) +
                    number(kNone, Role::position_embeddings, t * kFeatures + f));
      }
    }
    for (std::uint32_t i = 0; i < kLayers; ++i) layer(x, i, tokens);
    x = normed(x, kNone, Role::final_norm_weight, Role::final_norm_bias);
    Doubles found = linear(x, kNone, has(kNone, Role::head) ? Role::head : Role::word_embeddings, Role::head_bias);
    for (double& logit : found) logit = capped(logit, options_.logit_cap);
    return found;
  }

 private:
  static constexpr std::uint32_t kNone = sparsekit::kNoLayer;
  /// No bias has this role.
  static constexpr Role kNoBias = Role::type_embeddings;

  static std::size_t size(std::int64_t number) { return static_cast<std::size_t>(number); }
  bool has(std::uint32_t layer, Role role) const { return tensors_.contains({layer, role}); }

  /// 0 where there is no such tensor.
  double number(std::uint32_t layer, Role role, std::int64_t i) const {
    const auto found = tensors_.find({layer, role});
    return found == tensors_.end() ? 0.0 : static_cast<double>(found->second.dense[size(i)]);
  }

  static double capped(double value, float cap) {
    const auto bound = static_cast<double>(cap);
    return bound == 0.0 ? value : bound * std::tanh(value / bound);
  }

  static void add(Doubles& x, const Doubles& other) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += other[i];
  }

  void layer(Doubles& x, std::uint32_t i, std::int64_t tokens) const {
    const auto first = normed(x, i, Role::attention_norm_weight, Role::attention_norm_bias);
    const auto attended = normed(attend(first, i, tokens), i, Role::attention_post_norm_weight, kNoBias);
    if (options_.parallel == 0) add(x, attended);
    const auto second = normed(x, i, Role::output_norm_weight, Role::output_norm_bias);
    if (options_.parallel != 0) add(x, attended);
    add(x, normed(feed_forward(second, i), i, Role::feed_forward_post_norm_weight, kNoBias));
  }

  Doubles feed_forward(const Doubles& x, std::uint32_t layer) const {
    Doubles hidden = linear(x, layer, Role::up, Role::up_bias);
    for (double& value : hidden) value /= 1.0 + std::exp(-value);
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
    query = normed(query, layer, Role::query_norm_weight, kNoBias);
    key = normed(key, layer, Role::key_norm_weight, kNoBias);
    for (Doubles* turned : {&query, &key}) rotate(*turned, layer, tokens);
    const auto window = static_cast<std::int64_t>(number(kNone, Role::windows, layer));
    Doubles output(query.size(), 0.0);
    for (std::int64_t q = 0; q < tokens; ++q) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        const std::int64_t shared = head / (kHeads / kKeyHeads);
        double total = 0.0;
        Doubles sums(size(kHeadDim), 0.0);
        for (std::int64_t k = window == 0 ? 0 : std::max<std::int64_t>(0, q - window + 1); k <= q; ++k) {
          double product = 0.0;
          for (std::int64_t f = 0; f < kHeadDim; ++f) {
            product +=
                query[size((q * kHeads + head) * kHeadDim + f)] * key[size((k * kKeyHeads + shared) * kHeadDim + f)];
          }
          const double weight =
              std::exp(capped(product * static_cast<double>(options_.attention_scale), options_.attention_cap));
          total += weight;
          for (std::int64_t f = 0; f < kHeadDim; ++f) {
            sums[size(f)] += weight * value[size((k * kKeyHeads + shared) * kHeadDim + f)];
          }
        }
        for (std::int64_t f = 0; f < kHeadDim; ++f)
          output[size((q * kHeads + head) * kHeadDim + f)] = sums[size(f)] / total;
      }
    }
    return linear(output, layer, Role::attention_output, Role::attention_output_bias);
  }

  void rotate(Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    const double kind = has(kNone, Role::rotary_kinds) ? number(kNone, Role::rotary_kinds, layer) : 1.0;
    const Role role = kind == 2.0 ? Role::local_rotary : Role::rotary;
    if (kind == 0.0 || !has(kNone, role)) return;
    const std::int64_t dims = tensors_.at({kNone, role}).columns;
    const std::int64_t heads = static_cast<std::int64_t>(x.size()) / tokens / kHeadDim;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t f = 0; f < dims / 2; ++f) {
          const double cosine = number(kNone, role, t * dims + f);
          const double sine = number(kNone, role, t * dims + f + dims / 2);
          double& one = x[size((t * heads + head) * kHeadDim + f)];
          double& other = x[size((t * heads + head) * kHeadDim + f + dims / 2)];
          const double turned = one * cosine - other * sine;
          other = other * cosine + one * sine;
          one = turned;
        }
      }
    }
  }

  /// Parts as long as the weight, each by itself; as they are where there is no weight.
  Doubles normed(Doubles x, std::uint32_t layer, Role weight, Role bias) const {
    if (!has(layer, weight)) return x;
    const std::size_t width = tensors_.at({layer, weight}).dense.size();
    const auto count = static_cast<double>(width);
    for (std::size_t row = 0; row < x.size(); row += width) {
      double mean = 0.0;
      double square = 0.0;
      if (options_.norm == 0) {
        for (std::size_t f = 0; f < width; ++f) mean += x[row + f] / count;
      }
      for (std::size_t f = 0; f < width; ++f) square += (x[row + f] - mean) * (x[row + f] - mean) / count;
      const double scale = 1.0 / std::sqrt(square + static_cast<double>(options_.norm_eps));
      for (std::size_t f = 0; f < width; ++f) {
        const auto i = static_cast<std::int64_t>(f);
        x[row + f] = (x[row + f] - mean) * scale * number(layer, weight, i) + number(layer, bias, i);
      }
    }
    return x;
  }

  const Tensors& tensors_;
  sparsekit::DecoderOptions options_;
};

struct SmallDecoder {
  Tensors tensors;
  sparsekit::DecoderOptions options;
};

/// As Llama: a gate, rotary positions, a head that is tied to the word embeddings, no biases.
inline SmallDecoder small_llama() {
  constexpr std::uint32_t none = sparsekit::kNoLayer;
  const sparsekit::Layout layout = sparsekit::Layout::csr_f32;
  SmallDecoder made;
  Tensors& tensors = made.tensors;
  tensors[{none, Role::word_embeddings}] = sparse_tensor(kVocabulary, kFeatures, 1, sparsekit::Layout::dense_f32);
  tensors[{none, Role::final_norm_weight}] = float_tensor(kFeatures, 1, 2, 1.0F);
  tensors[{none, Role::rotary}] = float_tensor(kContext, kHeadDim, 3, 0.5F);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    const unsigned seed = 10 + 20 * i;
    tensors[{i, Role::attention_norm_weight}] = float_tensor(kFeatures, 1, seed, 1.0F);
    tensors[{i, Role::query}] = sparse_tensor(kHeads * kHeadDim, kFeatures, seed + 1, layout);
    tensors[{i, Role::key}] = sparse_tensor(kKeyHeads * kHeadDim, kFeatures, seed + 2, layout);
    tensors[{i, Role::value}] = sparse_tensor(kKeyHeads * kHeadDim, kFeatures, seed + 3, layout);
    tensors[{i, Role::attention_output}] = sparse_tensor(kFeatures, kHeads * kHeadDim, seed + 4, layout);
    tensors[{i, Role::output_norm_weight}] = float_tensor(kFeatures, 1, seed + 5, 1.0F);
    tensors[{i, Role::up}] = sparse_tensor(kHidden, kFeatures, seed + 6, layout);
    tensors[{i, Role::gate}] = sparse_tensor(kHidden, kFeatures, seed + 7, layout);
    tensors[{i, Role::down}] = sparse_tensor(kFeatures, kHidden, seed + 8, layout);
  }
  made.options = {kLayers,
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
  return made;
}

/// As Gemma: norms behind the halves too, of queries and keys by heads, a window, a second table, caps.
inline SmallDecoder small_gemma() {
  constexpr std::uint32_t none = sparsekit::kNoLayer;
  SmallDecoder made = small_llama();
  made.tensors[{none, Role::local_rotary}] = float_tensor(kContext, kHeadDim, 4, 0.5F);
  made.tensors[{none, Role::windows}] = float_tensor(kLayers, 1, 5);
  made.tensors[{none, Role::rotary_kinds}] = float_tensor(kLayers, 1, 6);
  const auto set = [&](Role role, float first, float second) {
    Tensor& tensor = made.tensors[{none, role}];
    tensor.dense = {first, second};
    std::memcpy(tensor.bytes.data(), tensor.dense.data(), tensor.bytes.size());
  };
  set(Role::windows, 5.0F, 0.0F);
  set(Role::rotary_kinds, 2.0F, 1.0F);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    made.tensors[{i, Role::query_norm_weight}] = float_tensor(kHeadDim, 1, 70 + i, 1.0F);
    made.tensors[{i, Role::key_norm_weight}] = float_tensor(kHeadDim, 1, 72 + i, 1.0F);
    made.tensors[{i, Role::attention_post_norm_weight}] = float_tensor(kFeatures, 1, 74 + i, 1.0F);
    made.tensors[{i, Role::feed_forward_post_norm_weight}] = float_tensor(kFeatures, 1, 76 + i, 1.0F);
  }
  made.options.attention_cap = 1.5F;
  made.options.logit_cap = 2.0F;
  made.options.embedding_scale = 4.9F;
  return made;
}

/// As GPT-NeoX: halves of the same input, layer norms and linear layers with biases, a part of each head turned.
inline SmallDecoder small_neox() {
  constexpr std::uint32_t none = sparsekit::kNoLayer;
  SmallDecoder made = small_llama();
  made.tensors[{none, Role::rotary}] = float_tensor(kContext, kHeadDim / 2, 3, 0.5F);
  made.tensors[{none, Role::final_norm_bias}] = float_tensor(kFeatures, 1, 80);
  made.tensors[{none, Role::head}] = sparse_tensor(kVocabulary, kFeatures, 81, sparsekit::Layout::sell_f32);
  made.tensors[{none, Role::head_bias}] = float_tensor(kVocabulary, 1, 82);
  made.tensors[{none, Role::word_embeddings}] = int8_table(kVocabulary, kFeatures, 83);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    made.tensors.erase({i, Role::gate});
    made.tensors[{i, Role::attention_norm_bias}] = float_tensor(kFeatures, 1, 84 + i);
    made.tensors[{i, Role::output_norm_bias}] = float_tensor(kFeatures, 1, 86 + i);
    made.tensors[{i, Role::query_bias}] = float_tensor(kHeads * kHeadDim, 1, 88 + i);
    made.tensors[{i, Role::down_bias}] = float_tensor(kFeatures, 1, 90 + i);
  }
  made.options.norm = static_cast<std::int32_t>(sparsekit::NormKind::layer);
  made.options.parallel = 1;
  return made;
}

/// As OLMo 2, with GPT-2's positions: no norm before a half, norms of all queries and all keys.
inline SmallDecoder small_olmo() {
  constexpr std::uint32_t none = sparsekit::kNoLayer;
  SmallDecoder made = small_gemma();
  for (const Role role : {Role::rotary, Role::local_rotary, Role::rotary_kinds}) made.tensors.erase({none, role});
  made.tensors[{none, Role::position_embeddings}] = float_tensor(kContext, kFeatures, 95);
  for (std::uint32_t i = 0; i < kLayers; ++i) {
    made.tensors.erase({i, Role::attention_norm_weight});
    made.tensors.erase({i, Role::output_norm_weight});
    made.tensors[{i, Role::query_norm_weight}] = float_tensor(kHeads * kHeadDim, 1, 70 + i, 1.0F);
    made.tensors[{i, Role::key_norm_weight}] = float_tensor(kKeyHeads * kHeadDim, 1, 72 + i, 1.0F);
  }
  return made;
}

inline AlignedBytes compiled(const SmallDecoder& made) { return compiled(made.tensors, made.options); }
