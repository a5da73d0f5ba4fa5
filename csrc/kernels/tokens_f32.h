// Out of kernels for a few tokens: the sums of every token stay in one piece, [tile, height, lanes rounded up to 16].
#pragma once

#include <cstddef>

#include "activation.h"
#include "partial.h"
#include "table.h"

namespace {

/// Calls `visit(row, vector, count)` for the sums of one token, `count` rows at a time in order; `rows` are the output
/// features of the sums, `height` a lane.
template <int height, class Visit>
inline void for_rows_of_token(const float* sums, sparsekit::RowRange rows, const Visit& visit) {
  const std::int64_t lanes = sparsekit::lanes_for(rows.last - rows.first, height);
  for (std::int64_t l = 0; l < lanes; l += Vector::width) {
    Vector found[static_cast<std::size_t>(height)];
    for (int r = 0; r < height; ++r) found[r] = Vector::load(sums + r * lanes + l);
    if constexpr (height > 1) interleave(found);
    for (int r = 0; r < height; ++r) {
      const std::int64_t row = rows.first + l * height + r * Vector::width;
      if (row < rows.last) visit(row, found[r], smaller(Vector::width, rows.last - row));
    }
  }
}

template <int height>
void store_tokens_f32(const sparsekit::PackedWeight&, const void*, const void* results, sparsekit::RowRange rows,
                      const sparsekit::Output& out) {
  const auto* sums = static_cast<const float*>(results);
  const std::int64_t token = sparsekit::lanes_for(rows.last - rows.first, height) * height;
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t t = 0; t < out.tokens; ++t) {
      for_rows_of_token<height>(sums + t * token, rows, [&](std::int64_t row, Vector sum, std::int64_t count) {
        const Vector bias = out.bias == nullptr ? Vector::zero() : load_up_to(out.bias + row, count);
        store_up_to(activate(sum + bias), out.data + t * out.stride + row, count);
      });
    }
  });
}

}  // namespace
