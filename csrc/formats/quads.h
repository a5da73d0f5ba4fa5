// The `quads` layouts (kernels/views.h): 16 lanes side by side, four entries of each at a time.
#pragma once

#include <limits>

#include "packed.h"

namespace sparsekit {

/// A sum of products of codes and quantised inputs, at most 127 * 255 each, stays in 32 bits up to this many.
inline constexpr std::int64_t kMostCodes = std::numeric_limits<std::int32_t>::max() / (127 * 255);

/// Whether neighbouring lanes begin with the columns that they share (pairs.h): where a kernel multiplies lanes one by
/// one, and an input that it loads is not used for several output features anyway.
template <class Value, int height>
inline constexpr bool kPaired = height == 1 && sizeof(Value) > 1;

/// Fills the arrays of `plan`, whose `scales` are there where the layout has them, for a validated CSR.
void plan_quads(const CsrView& csr, const LayoutEntry& layout, PackPlan& plan);

/// `fill` and `unpack` of a LayoutEntry, for float, BFloat16, Float16 and std::int8_t.
template <class Value, int height>
void fill_quads(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns);
template <class Value, int height>
CsrArrays unpack_quads(const PackedWeight& weight, std::int64_t nnz);

/// Entries that kernels read for the lanes before `lane`, to share the work between threads.
std::int64_t work_before(const PackedWeight& weight, std::int64_t lane);

}  // namespace sparsekit
