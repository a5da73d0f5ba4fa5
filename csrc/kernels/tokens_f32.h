// Into and out of kernels for a few tokens: every token's row stays in one piece.
//
//   activation  [tile, padded_features]     so that whole vectors can be read; no weight points into the padding
//   sums        [tile, rows rounded up to 16]
#pragma once

#include "activation.h"
#include "partial.h"
#include "views.h"

namespace {

template <int tile>
void pack_tokens_f32(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                     float* activation) {
  for (int t = 0; t < tile; ++t) {
    float* out = activation + t * padded_features;
    const float* row = input.data + t * input.stride;
    const std::int64_t valid = t < input.tokens ? features.last : features.first;
    for (std::int64_t f = features.first; f < valid; f += Vector::width) {
      store_up_to(load_up_to(row + f, valid - f), out + f, valid - f);
    }
    for (std::int64_t f = valid; f < features.last; ++f) out[f] = 0.0F;
  }
}

template <class Activate>
inline void store_tokens_with(const float* sums, sparsekit::RowRange rows, const sparsekit::Output& out,
                              const Activate& activate) {
  const std::int64_t stride = sparsekit::padded_lanes(rows.last - rows.first);
  for (std::int64_t r = rows.first; r < rows.last; r += Vector::width) {
    const std::int64_t count = smaller(Vector::width, rows.last - r);
    const Vector bias = out.bias == nullptr ? Vector::zero() : load_up_to(out.bias + r, count);
    for (std::int64_t t = 0; t < out.tokens; ++t) {
      const Vector sum = load_up_to(sums + t * stride + (r - rows.first), count) + bias;
      store_up_to(activate(sum), out.data + t * out.stride + r, count);
    }
  }
}

inline void store_tokens_f32(const float* sums, sparsekit::RowRange rows, const sparsekit::Output& out) {
  with_activation(out.activation, [&](const auto& activate) { store_tokens_with(sums, rows, out, activate); });
}

}  // namespace
