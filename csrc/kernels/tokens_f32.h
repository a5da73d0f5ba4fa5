// Out of kernels for a few tokens: the sums of every token stay in one piece, [tile, height, row groups rounded up to
// 16].
#pragma once

#include <cstddef>

#include "activation.h"
#include "partial.h"
#include "table.h"

namespace {

/// Calls `visit(row, vector, count)` for the sums of one token, `count` rows at a time in order; `rows` are the output
/// features of the sums, `height` a row group.
template <int height, class Visit>
inline void for_rows_of_token(const float* sums, sparsekit::Range rows, const Visit& visit) {
  const std::int64_t groups = sparsekit::padded_row_groups(rows.last - rows.first, height);
  for (std::int64_t g = 0; g < groups; g += Vec::width) {
    Vec found[static_cast<std::size_t>(height)];
    for (int r = 0; r < height; ++r) found[r] = Vec::load(sums + r * groups + g);
    if constexpr (height > 1) interleave(found);
    for (int r = 0; r < height; ++r) {
      const std::int64_t row = rows.first + g * height + r * Vec::width;
      if (row < rows.last) visit(row, found[r], min(Vec::width, rows.last - row));
    }
  }
}

template <int height, bool scaled = false>
void store_tokens_f32(const sparsekit::PackedWeight& weight, const void*, const void* results, sparsekit::Range rows,
                      const sparsekit::Output& out) {
  const auto* sums = static_cast<const float*>(results);
  const std::int64_t token = sparsekit::padded_row_groups(rows.last - rows.first, height) * height;
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t t = 0; t < out.tokens; ++t) {
      for_rows_of_token<height>(sums + t * token, rows, [&](std::int64_t row, Vec sum, std::int64_t count) {
        const Vec bias = out.bias == nullptr ? Vec::zero() : load_partial(out.bias + row, count);
        const Vec scale = scaled ? load_partial(weight.scales + row, count) : Vec::broadcast(1.0F);
        store_partial(activate(fma(sum, scale, bias)), out.data + t * out.stride + row, count);
      });
    }
  });
}

}  // namespace
