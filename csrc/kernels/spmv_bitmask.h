// SpMV: sparse weight with bitmasks of columns times one token, for instruction sets that expand values.
//
//   for each column block (256 inputs)          its part of the token: 1 KB, in L1
//     for each row                              sum += dot(values, token)
//       for each byte of its mask               eight values to the places of its bits, one FMA with eight inputs
//
// Per weight, zero or not: an eighth of a byte of mask, half a load (mask, places, values, inputs for eight);
// per nonzero its value. The time does not depend on the sparsity, so at 80% columns of a byte are faster.
//
//   sums     [rows rounded up to 16]
#pragma once

#include "mask_bytes.h"
#include "partial.h"
#include "spmv_csr.h"

namespace {

inline bool all_finite(const float* x, std::int64_t count) {
  Vec none = Vec::zero();
  for (std::int64_t i = 0; i < count; i += Vec::width) {
    const Vec part = load_partial(x + i, count - i);
    none = none + (part - part);
  }
  return !has_nan(none);
}

/// The inputs of a column block, eight by eight; those of the last few are followed by zeros.
struct Eights {
  const float* x;
  std::int64_t count;
  const float* rest;  // null where there are no last few

  Eights(const float* token, std::int64_t width, float* last) : x(token), count(width / 8), rest(nullptr) {
    if (width % 8 == 0) return;
    for (std::int64_t i = 0; i < 8; ++i) last[i] = i < width % 8 ? token[count * 8 + i] : 0.0F;
    rest = last;
  }
};

template <class Format>
[[gnu::always_inline]] inline float dot_expanded(const typename Format::Value* values, const std::uint8_t* mask,
                                                 const Eights& inputs) {
  Vec8 sums[4] = {Vec8::zero(), Vec8::zero(), Vec8::zero(), Vec8::zero()};
  const auto add = [&](Vec8& sum, unsigned byte, const float* x) {
    sum = fma(expand_eight(values, kMaskBytesTable.places + byte), Vec8::load(x), sum);
    values += __builtin_popcount(byte);
  };
  std::int64_t i = 0;
  for (; i + 4 <= inputs.count; i += 4) {
    for (int k = 0; k < 4; ++k) add(sums[k], mask[i + k], inputs.x + (i + k) * 8);
  }
  for (; i < inputs.count; ++i) add(sums[0], mask[i], inputs.x + i * 8);
  if (inputs.rest != nullptr) add(sums[0], mask[i], inputs.rest);
  return reduce_add(add_halves((sums[0] + sums[1]) + (sums[2] + sums[3])));
}

/// Inputs without a weight are multiplied by zero, so they must be finite; others go through columns.
template <class Format>
void spmv_bitmask(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  const auto* activation = static_cast<const float*>(packed);
  if (!all_finite(activation, weight.in_features)) return spmv_csr<Format>(weight, packed, results, rows);
  const auto* values = static_cast<const typename Format::Value*>(weight.values);
  auto* sums = static_cast<float*>(results);
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    float last[8];
    const Eights inputs(activation + weight.first_column(b),
                        min(weight.width, weight.in_features - weight.first_column(b)), last);
    for_slots(weight, b, row_groups_of<Format>(rows), [&](std::int64_t row, std::int64_t slot) {
      const float sum = dot_expanded<Format>(values + weight.slot_offsets[slot],
                                             weight.columns + slot * sparsekit::kMaskBytes, inputs);
      sums[row] = b == 0 ? sum : sums[row] + sum;
    });
  }
}

}  // namespace
