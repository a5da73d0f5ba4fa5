// Compiled once per instruction set (cmake/InstructionSets.cmake), with that set's flags and header. Everything but
// the table has internal linkage, so no code compiled for a newer machine can be linked into generic objects.
#include "table.h"

#include SPARSEKIT_ISA_HEADER

#include "spmm_lanes_f32.h"
#include "spmm_lanes_transposed_f32.h"
#include "spmm_panel_f32.h"
#include "spmm_panel_transposed_f32.h"
#include "spmv_lanes_f32.h"
#include "spmv_panel_f32.h"
#include "tile_f32.h"
#include "tokens_f32.h"

namespace {

using sparsekit::Kernel;
using sparsekit::Layout;

template <int tokens>
constexpr Kernel panel(const char* name, std::int64_t min_batch) {
  constexpr int vectors = tokens / Vector::width;
  return {name,
          Layout::panel,
          tokens,
          min_batch,
          spmm_panel_f32<vectors>,
          spmm_panel_transposed_f32<vectors>,
          pack_tile_f32<vectors>,
          store_tile_f32<vectors>};
}

template <int tokens>
constexpr Kernel lanes(const char* name, std::int64_t min_batch) {
  constexpr int vectors = tokens / Vector::width;
  return {name,
          Layout::lanes,
          tokens,
          min_batch,
          spmm_lanes_f32<vectors>,
          spmm_lanes_transposed_f32<vectors>,
          pack_tile_f32<vectors>,
          store_tile_f32<vectors>};
}

template <int tokens>
constexpr Kernel few_tokens(const char* name, std::int64_t min_batch) {
  return {name,    Layout::lanes,           tokens,          min_batch, spmv_lanes_f32<tokens>,
          nullptr, pack_tokens_f32<tokens>, store_tokens_f32};
}

}  // namespace

// The batch from which a kernel is preferred: three quarters of its tile, since padding then costs less than another
// pass over the weight with a smaller tile. Eight tokens at a time beat a `lanes` tile of 16.
extern "C" const sparsekit::KernelTable SPARSEKIT_TABLE = {
    10,
    {
        {"spmv_panel_f32", Layout::panel, 1, 1, spmv_panel_f32, nullptr, nullptr, store_tokens_f32},
        panel<16>("spmm_panel_f32_16", 2),
        panel<32>("spmm_panel_f32_32", 25),
        panel<64>("spmm_panel_f32_64", 49),
        few_tokens<1>("spmv_lanes_f32_1", 1),
        few_tokens<2>("spmv_lanes_f32_2", 2),
        few_tokens<4>("spmv_lanes_f32_4", 3),
        few_tokens<8>("spmv_lanes_f32_8", 5),
        lanes<32>("spmm_lanes_f32_32", 25),
        lanes<64>("spmm_lanes_f32_64", 49),
    },
};
