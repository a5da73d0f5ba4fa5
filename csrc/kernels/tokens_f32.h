// Out of kernels for a few tokens: the sums of every token stay in one piece, [tile, rows rounded up to 16].
#pragma once

#include "activation.h"
#include "partial.h"
#include "table.h"

namespace {

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

inline void store_tokens_f32(const sparsekit::PackedWeight&, const void*, const void* sums, sparsekit::RowRange rows,
                             const sparsekit::Output& out) {
  with_activation(out.activation, [&](const auto& activate) {
    store_tokens_with(static_cast<const float*>(sums), rows, out, activate);
  });
}

}  // namespace
