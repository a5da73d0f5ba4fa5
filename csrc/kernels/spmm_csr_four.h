// SpMM: sparse weight in column blocks of CSR times four tokens, for instruction sets whose vectors hold eight floats:
// two entries, or two rows of a 4x1 block, side by side.
//
//   for each column block (256 inputs)        its part of the activation: 4 KB, in L1
//     for each row group                      sums of four tokens
//       for each two entries                  values spread to four lanes each, inputs by two loads, one FMA
//
//   activation   [features, 4]               sums   [rows, 4]
#pragma once

#include "csr_rows.h"
#include "sell_slice.h"

namespace {

inline constexpr int kFour = 4;  // tokens

/// Adds the entries of a single row, eight at a time.
template <class Format>
[[gnu::always_inline]] inline Vec4 add_entries_of_four(CsrRow<Format> row, const float* inputs, Vec4 sum) {
  const auto input = [&](unsigned i) { return inputs + row.columns[i] * static_cast<std::size_t>(kFour); };
  Vec8 sums[4] = {Vec8::zero(), Vec8::zero(), Vec8::zero(), Vec8::zero()};
  Vec8 value[2];
  for (; row.count >= 8; row.skip(8)) {
    spread_four(row.values, value);
    sums[0] = fma(value[0], load_two(input(0), input(1)), sums[0]);
    sums[1] = fma(value[1], load_two(input(2), input(3)), sums[1]);
    spread_four(row.values + 4, value);
    sums[2] = fma(value[0], load_two(input(4), input(5)), sums[2]);
    sums[3] = fma(value[1], load_two(input(6), input(7)), sums[3]);
  }
  if (row.count >= 4) {
    spread_four(row.values, value);
    sums[0] = fma(value[0], load_two(input(0), input(1)), sums[0]);
    sums[1] = fma(value[1], load_two(input(2), input(3)), sums[1]);
    row.skip(4);
  }
  sum = sum + add_halves((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (unsigned i = 0; i < row.count; ++i) {
    sum = fma(Vec4::broadcast(widen(row.values[i])), Vec4::load(input(i)), sum);
  }
  return sum;
}

/// Adds the entries of a 4x1 block's rows; `sums` are those of two rows each.
template <class Format>
[[gnu::always_inline]] inline void add_blocks_of_four(CsrRow<Format> row, const float* inputs, Vec8 (&sums)[2]) {
  Vec8 more[2] = {Vec8::zero(), Vec8::zero()};
  Vec8 value[2];
  const auto add = [&](unsigned i, Vec8(&to)[2]) {
    spread_four(row.values + i * 4, value);
    const Vec8 x = load_twice(inputs + row.columns[i] * static_cast<std::size_t>(kFour));
    for (int h = 0; h < 2; ++h) to[h] = fma(value[h], x, to[h]);
  };
  for (; row.count >= 2; row.skip(2)) {
    add(0, sums);
    add(1, more);
  }
  if (row.count > 0) add(0, sums);
  for (int h = 0; h < 2; ++h) sums[h] = sums[h] + more[h];
}

template <class Format>
void spmm_csr_four(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const float* inputs = activation + weight.first_column(b) * kFour;
    for_csr_rows<Format>(weight, b, groups, [&](std::int64_t group, const CsrRow<Format>& row) {
      float* at = sums + group * Format::height * kFour;
      if constexpr (Format::height == 1) {
        add_entries_of_four(row, inputs, b == 0 ? Vec4::zero() : Vec4::load(at)).store(at);
      } else {
        Vec8 two[2] = {Vec8::zero(), Vec8::zero()};
        if (b > 0) two[0] = Vec8::load(at), two[1] = Vec8::load(at + Vec8::width);
        add_blocks_of_four(row, inputs, two);
        for (int h = 0; h < 2; ++h) two[h].store(at + h * Vec8::width);
      }
    });
  }
}

}  // namespace
