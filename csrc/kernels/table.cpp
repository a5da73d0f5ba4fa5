// Compiled once per instruction set (cmake/InstructionSets.cmake), with that set's flags and header. Everything but
// the table has internal linkage, so no code compiled for a newer machine can be linked into generic objects.
#include "table.h"

#include SPARSEKIT_ISA_HEADER

#include "peak_f32.h"
#include "spmm_quads_f32.h"
#include "spmm_quads_transposed_f32.h"
#include "tile_f32.h"
#ifdef SPARSEKIT_PICKS_FROM_REGISTERS
#include "spmv_quads_f32.h"
#else
#include "spmv_quads_rows_f32.h"
#endif
#ifdef SPARSEKIT_PICKS_BYTES
#include "spmv_quads_s8.h"
#else
#include "spmv_quads_rows_s8.h"
#endif

namespace {

using sparsekit::Kernel;
using sparsekit::KernelTable;

template <class Lane, int tokens>
constexpr Kernel tile(const char* name, std::int64_t min_batch) {
  constexpr int vectors = tokens / Lane::width;
  return {name,
          sparsekit::Layout::quads,
          tokens,
          min_batch,
          tokens * static_cast<std::int64_t>(sizeof(float)),
          0,
          false,
          spmm_quads_f32<Lane, vectors>,
          spmm_quads_transposed_f32<Lane, vectors>,
          pack_tile_f32<tokens>,
          store_tile_f32<tokens>};
}

/// The batch from which a kernel is preferred is where padding its tile costs less than another pass over the weight
/// with a smaller one.
constexpr Kernel kTiles[] = {
    tile<Eight, 8>("spmm_quads_f32_8", kMostFewTokens + 1),
    tile<Vector, 16>("spmm_quads_f32_16", 11),
    tile<Vector, 32>("spmm_quads_f32_32", 22),
    tile<Vector, 64>("spmm_quads_f32_64", 49),
};

constexpr KernelTable table() {
  KernelTable all{peak_f32, 2 * kPeakChains * Vector::width, 0, {}};
  for (const Kernel& kernel : kFewTokens) all.kernels[all.size++] = kernel;
  for (const Kernel& kernel : kTiles) all.kernels[all.size++] = kernel;
  for (const Kernel& kernel : kByteKernels) all.kernels[all.size++] = kernel;
  return all;
}

}  // namespace

extern "C" const sparsekit::KernelTable SPARSEKIT_TABLE = table();
