// The layouts `csr_*` and `bitmask_*`: CSR, cut into column blocks of 256 inputs.
//
// The entries of a row in a column block lie one after the other, in ascending order, without padding; a column is one
// byte, relative to the column block. The rows of every sort window of 64 are sorted by their number of entries in the
// column block, most first, so that a kernel's loop ends where the one before ended; the place of a row in this order
// is its slot, and slots follow one another:
//
//   slot_offsets   first entry of a slot, by column block and then by slot, and the end of the last
//   slot_to_row    row of a slot, relative to its sort window       row_to_slot    the other way round
//
// With 4x1 blocks a row group, four rows with one list of columns, takes the place of a row; an entry is one column and
// the values of the four rows, next to each other.
//
// `bitmask_*` has the same values; its columns are bits, 32 bytes a slot, instead of bytes: an eighth of a byte for
// each weight, zero or not, which is less than a byte for each entry up to 87.5% sparsity. Kernels for one token expand
// eight values at a time to the places that a byte of the mask says, others turn masks into columns first.
//
// int8 values are multiplied as floats, and sums with the scales of their rows: inputs are not quantized.
//
// Cutting a matrix into blocks whose part of the input stays in cache is cache blocking (Im, Yelick, Vuduc: "SPARSITY:
// Optimization framework for sparse matrix kernels", Int. J. High Perform. Comput. Appl. 18, 2004). Kernels read such
// a row from its beginning to its end, which suits instruction sets that cannot permute inputs across registers.
#pragma once

#include "packed.h"

namespace sparsekit {

/// Fills the arrays of `plan` for a validated CSR.
void plan_csr_blocks(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan);

/// `fill` and `unpack` of a LayoutEntry, for float, BFloat16, Float16 and std::int8_t.
template <class Value, int height, Family family>
void fill_csr_blocks(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
template <class Value, int height, Family family>
AnyCsrArrays unpack_csr_blocks(const PackedWeight& weight, std::int64_t nnz);

/// Entries of the row groups before `row_group`, the first of a sort window or the end.
std::int64_t csr_entries_before(const PackedWeight& weight, std::int64_t row_group);

}  // namespace sparsekit
