// Sparse int8 weight times one token of bytes, row by row, for instruction sets without a kernel of their own.
//
//   for each block of 128 input features        128 bytes of the token
//     for each row                              sums[row] += dot(codes of the row, token[columns of the row])
//
// Per nonzero: 2 bytes of weight; three loads.
#pragma once

#include "quads.h"
#include "tokens_s8.h"

namespace {

inline void spmv_quads_rows_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                               sparsekit::RowRange rows) {
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(1);
  auto* sums = static_cast<std::int32_t*>(results);
  for (std::int64_t r = rows.first; r < sparsekit::padded_lanes(rows.last); ++r) sums[r - rows.first] = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint8_t* x = bytes + b * sparsekit::kBlockWidth;
    for (std::int64_t p = rows.first; p < rows.last; ++p) {
      const std::int64_t at = weight.at(b, p);
      const auto lane = static_cast<unsigned>(at % sparsekit::kLanes);
      const std::int64_t first =
          std::int64_t{weight.starts[at / sparsekit::kLanes]} * sparsekit::kGroup + sparsekit::value_slot(lane);
      std::int32_t sum = 0;
      for (std::int64_t i = 0; i < weight.counts[at]; ++i) {
        const std::int64_t entry = first + i / sparsekit::kQuad * sparsekit::kGroup + i % sparsekit::kQuad;
        sum += std::int32_t{weight.codes[entry]} * std::int32_t{x[weight.columns[entry]]};
      }
      sums[sparsekit::window_of(p) - rows.first + weight.rows[at]] += sum;
    }
  }
}

constexpr sparsekit::Kernel kByteKernels[] = {{"spmv_quads_rows_s8", sparsekit::Layout::quads_s8, 1, 1, 1,
                                               head_bytes(1), true, spmv_quads_rows_s8, nullptr, pack_bytes_s8<1>,
                                               store_sums_s8}};

}  // namespace
