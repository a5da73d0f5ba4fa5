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

template <int vectors>
constexpr Kernel panel(const char* name, std::int64_t min_batch) {
  return {name,          Layout::panel,           vectors * Vector::width,
          min_batch,     spmm_panel_f32<vectors>, spmm_panel_transposed_f32<vectors>,
          pack_tile_f32<vectors>, store_tile_f32<vectors>};
}

template <int vectors>
constexpr Kernel lanes(const char* name, std::int64_t min_batch) {
  return {name,          Layout::lanes,           vectors * Vector::width,
          min_batch,     spmm_lanes_f32<vectors>, spmm_lanes_transposed_f32<vectors>,
          pack_tile_f32<vectors>, store_tile_f32<vectors>};
}

template <int tokens>
constexpr Kernel few_tokens(const char* name, std::int64_t min_batch) {
  return {name,    Layout::lanes,           tokens,          min_batch, spmv_lanes_f32<tokens>,
          nullptr, pack_tokens_f32<tokens>, store_tokens_f32};
}

/// From three quarters of a tile on, padding costs less than another pass over the weight with smaller tiles.
constexpr std::int64_t mostly(int vectors) { return vectors * Vector::width * 3 / 4 + 1; }

}  // namespace

extern "C" const sparsekit::KernelTable SPARSEKIT_TABLE = {
    13,
    {
        {"spmv_panel_f32", Layout::panel, 1, 1, spmv_panel_f32, nullptr, nullptr, store_tokens_f32},
        panel<1>("spmm_panel_f32_x1", 2),
        panel<2>("spmm_panel_f32_x2", mostly(2)),
        panel<4>("spmm_panel_f32_x4", mostly(4)),
        panel<8>("spmm_panel_f32_x8", mostly(8)),
        few_tokens<1>("spmv_lanes_f32_1", 1),
        few_tokens<2>("spmv_lanes_f32_2", 2),
        few_tokens<4>("spmv_lanes_f32_4", 3),
        few_tokens<8>("spmv_lanes_f32_8", 5),
        lanes<1>("spmm_lanes_f32_x1", 9),
        lanes<2>("spmm_lanes_f32_x2", mostly(2)),
        lanes<4>("spmm_lanes_f32_x4", mostly(4)),
        lanes<8>("spmm_lanes_f32_x8", mostly(8)),
    },
};
