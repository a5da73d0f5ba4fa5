// SpMV: sparse weight times one to four tokens, 16 rows at a time, for instruction sets that permute inputs across
// registers.
//
//   for each column block (128 inputs)
//     for each token, or two of them            their inputs stay in registers
//       for each sort window of 64 rows
//         for each slice                        four accumulators a row of a row group: four registers
//           for each stripe                     64 one-byte columns, 64 values a row of a row group
//             for each token                    permute the inputs of the 64 columns into four registers
//               for each row of a row group     four FMAs
//         the four sums of each row added, brought from slots to rows and added to the sums; those of 4x1 blocks in
//         the order that `interleave` takes
//
// Per nonzero: 5 bytes of weight (3 with 16 bits), 5/64 loads for each row. Permuting registers replaces the gather
// from memory that bounds CSR at about one cycle a nonzero. A padded entry permutes to 0, so that infinities and NaN of
// inputs without a weight stay out of the sums.
//
//   sums     [tile, height, row groups], rounded up to 16
#pragma once

#include <cstddef>

#include "sell_slice.h"
#include "tokens_f32.h"

namespace {

/// The sums of a slice, the `index`th of its sort window: one vector for every token and row of a row group.
template <class Format, int tokens>
[[gnu::always_inline]] inline void multiply_slice(const Slice<Format>& slice, const Inputs* inputs,
                                                  Vec (*sums)[kSlicesOfWindow], std::int64_t index) {
  constexpr int height = Format::height;
  Vec accumulator[static_cast<std::size_t>(tokens)][static_cast<std::size_t>(height)][4];
  for (auto& token : accumulator) {
    for (auto& row : token) {
      for (auto& part : row) part = Vec::zero();
    }
  }
  for (std::size_t s = 0; s < slice.stripes; ++s) {
    const auto* values = slice.values + s * Format::values;
    const Columns columns = Columns::load(slice.columns + s * sparsekit::kStripe);
    for (int t = 0; t < tokens; ++t) {
      Vec permuted[4];
      inputs[t].permute(columns, permuted);
      for (int r = 0; r < height; ++r) {
        for (int k = 0; k < 4; ++k) {
          const Vec value = load_values(values + r * sparsekit::kStripe, k);
          accumulator[t][r][k] = fma(value, permuted[k], accumulator[t][r][k]);
        }
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < height; ++r) sums[t * height + r][index] = reduce_quads(accumulator[t][r]);
  }
}

/// One column block times `tokens` tokens; `activation` and `sums` are those of the first.
template <class Format, int tokens>
inline void multiply_column_block(const sparsekit::PackedWeight& weight, std::int64_t column_block,
                                  const float* activation, float* sums, sparsekit::Range groups) {
  constexpr int found_size = tokens * Format::height;
  const std::int64_t stride = sparsekit::padded_to_slices(groups.last - groups.first);
  Inputs inputs[static_cast<std::size_t>(tokens)];
  for (int t = 0; t < tokens; ++t)
    inputs[t] = Inputs::load(activation + t * weight.column_blocks * sparsekit::kColumnBlock);
  for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSortWindow) {
    const std::int64_t slices = min(kSlicesOfWindow, (groups.last - first + sparsekit::kSlice - 1) / sparsekit::kSlice);
    Vec found[static_cast<std::size_t>(found_size)][kSlicesOfWindow];
    for (std::int64_t i = 0; i < slices; ++i) {
      multiply_slice<Format, tokens>(Slice<Format>::of(weight, column_block, first + i * sparsekit::kSlice), inputs,
                                     found, i);
    }
    for (std::int64_t i = 0; i < slices; ++i) {
      const std::uint8_t* at = weight.row_to_slot + weight.order_index(column_block, first + i * sparsekit::kSlice);
      const SlotIndex index = Format::height == 1 ? SlotIndex(at) : SlotIndex::by_four(at);
      for (int t = 0; t < found_size; ++t) {
        float* sum = sums + t * stride + (first - groups.first) + i * sparsekit::kSlice;
        const Vec more = index.permute(found[t]);
        (column_block == 0 ? more : Vec::load(sum) + more).store(sum);
      }
    }
  }
}

template <class Format, int tile>
void spmv_sell_permute(const sparsekit::PackedWeight& weight, const void* packed, void* results,
                       sparsekit::Range rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  constexpr int together = tile > 1 && Format::height == 1 ? 2 : 1;
  const std::int64_t features = weight.column_blocks * sparsekit::kColumnBlock;
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  const std::int64_t token = sparsekit::padded_to_slices(groups.last - groups.first) * Format::height;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    for (int t = 0; t < tile; t += together) {
      multiply_column_block<Format, together>(weight, b, activation + t * features + b * sparsekit::kColumnBlock,
                                              sums + t * token, groups);
    }
  }
}

/// Every token's row in the form that `Inputs` wants; a packed row takes as many bytes as floats.
template <int tile>
bool pack_inputs_f32(const sparsekit::Input& input, sparsekit::Range features, std::int64_t padded_features,
                     void* packed) {
  auto* activation = static_cast<float*>(packed);
  for (int t = 0; t < tile; ++t) {
    const float* row = input.data + t * input.stride;
    for (std::int64_t f = features.first; f < features.last; f += Inputs::kPackWidth) {
      const std::int64_t count = t < input.tokens ? min(Inputs::kPackWidth, features.last - f) : 0;
      Inputs::pack(row + f, count, activation + t * padded_features + f);
    }
  }
  return true;
}

}  // namespace
