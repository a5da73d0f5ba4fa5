// Blocks of entries below each other: how full those of a weight are, and a weight whose blocks are all full.
#pragma once

#include "csr.h"

namespace sparsekit {

/// Entries that a validated CSR has when the rows of every row group, `height` next to each other, all have an entry
/// wherever one of them has; -1 as soon as it is clear that less than the part `least_full` of the places in blocks are
/// entries of `csr`. A last row group with fewer rows has places that nothing can fill: they cost as much.
std::int64_t full_block_entries(const CsrView& csr, std::int64_t height, double least_full);

/// The same matrix with zeros stored where a block is not full; `entries` is what `full_block_entries` counted.
AnyCsrArrays with_full_blocks(const CsrView& csr, std::int64_t height, std::int64_t entries);

}  // namespace sparsekit
