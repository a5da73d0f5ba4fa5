// A decoder in double precision; keys and values may be rounded to the type of a cache.
#pragma once

#include <algorithm>

#include "decoder_families.h"
#include "formats/values.h"
#include "reference.h"

using Doubles = std::vector<double>;

/// Computes what docs/compiled-model.md says, one number after the other.
class ExactDecoder {
 public:
  ExactDecoder(const Tensors& tensors, const sparsekit::DecoderOptions& options,
               sparsekit::DType cache_dtype = sparsekit::DType::float32)
      : tensors_(tensors), options_(options), cache_dtype_(cache_dtype) {}

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
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(options_.layers); ++i) layer(x, i, tokens);
    x = normed(x, kNone, Role::final_norm_weight, Role::final_norm_bias);
    Doubles found = linear(x, kNone, has(kNone, Role::head) ? Role::head : Role::word_embeddings, Role::head_bias);
    for (double& logit : found) logit = capped(logit, options_.logit_cap);
    return found;
  }

 private:
  using NormKind = sparsekit::NormKind;
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

  /// As a cache stores them: of int8, the largest of a head of a token is 127 steps.
  void round_stored(Doubles& x) const {
    if (cache_dtype_ == sparsekit::DType::float32) return;
    for (auto head = x.begin(); head != x.end(); head += kHeadDim) {
      double most = 0.0;
      for (std::int64_t f = 0; f < kHeadDim; ++f) most = std::max(most, std::fabs(head[f]));
      for (std::int64_t f = 0; f < kHeadDim; ++f) {
        head[f] = cache_dtype_ == sparsekit::DType::int8
                      ? (most == 0.0 ? 0.0 : std::nearbyint(head[f] / most * 127) * most / 127)
                      : double{sparsekit::to_float(sparsekit::to_bfloat16(static_cast<float>(head[f])))};
      }
    }
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
    for (double& value : hidden) value = activated(static_cast<sparsekit::Activation>(options_.activation), value);
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
        const float* row = tensor.dense.data() + r * tensor.columns;
        double sum = number(layer, bias, r);
        for (std::int64_t c = 0; c < tensor.columns; ++c) {
          sum += static_cast<double>(row[c]) * x[size(t * tensor.columns + c)];
        }
        output.push_back(sum);
      }
    }
    return output;
  }

  Doubles attend(const Doubles& x, std::uint32_t layer, std::int64_t tokens) const {
    Doubles query = linear(x, layer, Role::query, Role::query_bias);
    Doubles key = linear(x, layer, Role::key, Role::key_bias);
    Doubles value = linear(x, layer, Role::value, Role::value_bias);
    query = normed(query, layer, Role::query_norm_weight, kNoBias, NormKind::root_mean_square);
    key = normed(key, layer, Role::key_norm_weight, kNoBias, NormKind::root_mean_square);
    for (Doubles* turned : {&query, &key}) rotate(*turned, layer, tokens);
    for (Doubles* stored : {&key, &value}) round_stored(*stored);
    const std::int64_t heads = tensors_.at({layer, Role::query}).rows / kHeadDim;
    const std::int64_t key_heads = tensors_.at({layer, Role::key}).rows / kHeadDim;
    const auto window = static_cast<std::int64_t>(number(kNone, Role::windows, layer));
    Doubles output(query.size(), 0.0);
    for (std::int64_t q = 0; q < tokens; ++q) {
      const std::int64_t first = window == 0 ? 0 : std::max<std::int64_t>(0, q - window + 1);
      for (std::int64_t head = 0; head < heads; ++head) {
        const std::int64_t shared = head / (heads / key_heads);
        const auto own = size((q * heads + head) * kHeadDim);
        double total = 0.0;
        for (std::int64_t k = first; k <= q; ++k) {
          const auto other = size((k * key_heads + shared) * kHeadDim);
          double product = 0.0;
          for (std::size_t f = 0; f < kHeadDim; ++f) product += query[own + f] * key[other + f];
          const double score = product * static_cast<double>(options_.attention_scale);
          const double weight = std::exp(capped(score, options_.attention_cap));
          total += weight;
          for (std::size_t f = 0; f < kHeadDim; ++f) output[own + f] += weight * value[other + f];
        }
        for (std::size_t f = 0; f < kHeadDim; ++f) output[own + f] /= total;
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

  Doubles normed(const Doubles& x, std::uint32_t layer, Role weight, Role bias) const {
    return normed(x, layer, weight, bias, static_cast<NormKind>(options_.norm));
  }

  /// Parts as long as the weight, each by itself; as they are where there is no weight.
  Doubles normed(Doubles x, std::uint32_t layer, Role weight, Role bias, NormKind kind) const {
    if (!has(layer, weight)) return x;
    const std::size_t width = tensors_.at({layer, weight}).dense.size();
    const auto count = static_cast<double>(width);
    for (std::size_t row = 0; row < x.size(); row += width) {
      double mean = 0.0;
      double square = 0.0;
      if (kind == NormKind::layer) {
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
  sparsekit::DType cache_dtype_;
};
