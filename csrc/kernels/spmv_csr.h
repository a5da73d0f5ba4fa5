// SpMV: sparse weight in column blocks of CSR times one token.
//
//   for each column block (256 inputs)          its part of the token: 1 KB, in L1
//     for each row group                        sums[rows] += dot(values, token[columns])
//
// Per nonzero: 5 bytes of weight, read in order; the bound is a load of its input (a quarter of one in 4x1 blocks).
// Eight products at a time where an instruction set can take eight inputs together.
//
//   sums     [row groups rounded up to 16, height]
#pragma once

#include "csr_rows.h"
#include "sell_slice.h"
#include "tokens_f32.h"

namespace {

/// Adds the dot products of a row group's rows and the token, one by one.
template <class Format>
[[gnu::always_inline]] inline void dot_rows(CsrRow<Format> row, const float* x, float* sums) {
  constexpr auto height = static_cast<unsigned>(Format::height);
  float sum[height][sparsekit::kQuad] = {};
  const auto add = [&](unsigned i) {
    for (unsigned r = 0; r < height; ++r) sum[r][i] += widen(row.values[i * height + r]) * x[row.columns[i]];
  };
  for (; row.count >= sparsekit::kQuad; row.skip(sparsekit::kQuad)) {
    for (unsigned i = 0; i < sparsekit::kQuad; ++i) add(i);
  }
  for (unsigned i = 0; i < row.count; ++i) add(i);
  for (unsigned r = 0; r < height; ++r) sums[r] += (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
}

/// The same of a single row, eight entries at a time.
template <class Format>
[[gnu::always_inline]] inline void dot_eight(CsrRow<Format> row, const float* x, float* sums) {
  Vec8 eight = Vec8::zero();
  for (; row.count >= 8; row.skip(8)) {
    eight = fma(gather_eight(x, row.columns), adjacent_eight(row.values), eight);
  }
  float sum = reduce_add(add_halves(eight));
  for (unsigned i = 0; i < row.count; ++i) sum += widen(row.values[i]) * x[row.columns[i]];
  *sums += sum;
}

/// The same of four rows, two entries at a time.
template <class Format>
[[gnu::always_inline]] inline void dot_blocks(CsrRow<Format> row, const float* x, float* sums) {
  Vec8 even = Vec8::zero();
  Vec8 odd = Vec8::zero();
  for (; row.count >= 4; row.skip(4)) {
    even = fma(spread_two(x + row.columns[0], x + row.columns[1]), adjacent_eight(row.values), even);
    odd = fma(spread_two(x + row.columns[2], x + row.columns[3]), adjacent_eight(row.values + 8), odd);
  }
  Vec4 sum = Vec4::load(sums) + add_halves(even + odd);
  for (unsigned i = 0; i < row.count; ++i) {
    sum = fma(Vec4::broadcast(x[row.columns[i]]), Vec4::adjacent(row.values + i * 4), sum);
  }
  sum.store(sums);
}

template <class Format>
void spmv_csr(const sparsekit::PackedWeight& weight, const void* packed, void* results, sparsekit::Range rows) {
  const auto* activation = static_cast<const float*>(packed);
  auto* sums = static_cast<float*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t r = 0; r < sparsekit::padded_to_slices(groups.last - groups.first) * Format::height; ++r)
    sums[r] = 0.0F;
  for (std::int64_t b = 0; b < weight.column_blocks; ++b) {
    const float* x = activation + weight.first_column(b);
    for_csr_rows<Format>(weight, b, groups, [&](std::int64_t group, const CsrRow<Format>& row) {
      float* group_sums = sums + group * Format::height;
      if constexpr (!kGathersInputs) {
        dot_rows(row, x, group_sums);
      } else if constexpr (Format::height == 1) {
        dot_eight(row, x, group_sums);
      } else {
        dot_blocks(row, x, group_sums);
      }
    });
  }
}

}  // namespace
