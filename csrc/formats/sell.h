// The layout of packed weights: SELL-C-sigma (sliced ELLPACK; Kreutzer, Hager, Wellein, Fehske, Bishop: "A unified
// sparse matrix data format for efficient general sparse matrix-vector multiplication on modern processors with wide
// SIMD units", SIAM J. Sci. Comput. 36, 2014), with C = 16 and sigma = 64.
//
// The rows (output features) of every sort window of 64 are sorted by their number of entries, most first, and cut into
// slices of 16. The rows of a slice are about as long; what shorter ones lack is padding. The place of a row in this
// order is its slot:
//
//   slot_to_row    row of a slot, relative to its sort window       row_to_slot    the other way round
//   row_lengths    real entries of a slot                           slice_offsets  first stripe of a slice
//
// Where it departs from the paper:
//
// Column blocks. The matrix is cut into column blocks of 128 inputs, each sorted and sliced by itself: a token's inputs
// of a column block fit in registers (or a tile's in L1), and a column takes a byte. `PackedShape` (kernels/
// packed_weight.h) knows where slices and slots of column blocks are.
//
// Stripes. A slice is stored four columns at a time: a stripe holds four entries (a quad) of each of its 16 rows, so
// that one row can be read a quad at a time, and 16 rows side by side:
//
//   values   of a stripe   slot 0: v0 v1 v2 v3 | slot 1: v0 v1 v2 v3 | ... | slot 15: v0 v1 v2 v3
//   columns  of a stripe   the same four by four, slots 0 4 8 12 1 5 9 13 2 6 10 14 3 7 11 15, which is what
//                          interleaving four byte planes gives (isa/x86/permute_vbmi.h)
//
// Where the values of 16 bits lie: `value_place`. Padding: value 0, column `kPaddingColumn`. Entries of a row are in
// ascending order of columns, but for
//
// Pairs. Rows next to each other, of an even slot and the odd one after it, begin with entries in the same columns, as
// many quads of them in all pairs of a slice (sell_pairs.h): a kernel loads their inputs once for both rows.
//
// Row groups. In the layouts `sell_4x1_*` the unit is a row group: four rows of a 4x1 block next to each other, which
// have their entries in the same columns. An entry is one column and four values: a stripe holds the values of every
// row group's first row, then of every row group's second, and so on. What is said of rows above holds for row groups.
//
// int8 values. `sell_s8` holds a byte for every value, `value = byte * scales[row]`, with the columns of a stripe in
// the order of its values. Padding: value 0, column 0. `row_sums` are the sums of a row's bytes. Its column blocks
// overlap (sell_overlapping.h): each begins 64 inputs after the one before, so that most inputs lie in two. An entry of
// such an input is where there is room for it, which evens out how many entries the rows of a slice have in a column
// block: 1.23 places a nonzero at 90% sparsity, where column blocks that do not overlap take 1.27 with an order of rows
// for each, and 1.57 with one order. So one order is enough: a kernel goes on adding from column block to column block,
// and the slices of the same 16 rows lie one after the other.
#pragma once

#include <limits>

#include "packed.h"

namespace sparsekit {

/// A sum of products of int8 values and quantized inputs, at most 127 * 255 each, stays in 32 bits up to this many.
inline constexpr std::int64_t kMaxInt8Nnz = std::numeric_limits<std::int32_t>::max() / (127 * 255);

/// Whether neighboring rows begin with the columns that they share (sell_pairs.h): where a kernel multiplies rows one
/// by one, and an input that it loads is not used for several rows anyway.
template <class Value, int height>
inline constexpr bool kPairsRows = height == 1 && sizeof(Value) > 1;

/// Fills the arrays of `plan`, whose `scales` are there where the layout has them, for a validated CSR.
void plan_sell(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan);

/// `fill` and `unpack` of a LayoutEntry, for float, BFloat16, Float16 and std::int8_t.
template <class Value, int height>
void fill_sell(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
template <class Value, int height>
AnyCsrArrays unpack_sell(const PackedWeight& weight, std::int64_t nnz);

/// Entries that kernels read for the row groups before `row_group`, to share the work between threads.
std::int64_t work_before(const PackedWeight& weight, std::int64_t row_group);

}  // namespace sparsekit
