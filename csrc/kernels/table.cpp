// Compiled once per instruction set (cmake/InstructionSets.cmake), with that set's flags and header. Everything but
// the table has internal linkage, so no code compiled for a newer machine can be linked into generic objects.
#include "table.h"

#include SPARSEKIT_ISA_HEADER

#include "attention_f32.h"
#include "attention_few_f32.h"
#include "norm_f32.h"
#include "peak_f32.h"
#include "spmm_quads.h"
#include "spmm_quads_transposed.h"
#include "tile_f32.h"
#ifdef SPARSEKIT_PICKS_FROM_REGISTERS
#include "spmv_quads.h"
#else
#include "spmv_quads_rows.h"
#endif
#if defined(SPARSEKIT_PICKS_BYTES)
#include "spmv_quads_s8.h"
#include "store_lanes_s8.h"
#elif defined(SPARSEKIT_INTERLEAVES_BYTES)
#include "spmv_quads_lookup_s8.h"
#else
#include "spmv_quads_rows_s8.h"
#endif
#ifdef SPARSEKIT_INTERLEAVES_BYTES
#include "spmm_quads_s8.h"
#endif

namespace {

using sparsekit::Kernel;
using sparsekit::KernelTable;

template <class Format, class Lane, int tokens>
constexpr Kernel tile(std::int64_t min_batch) {
  constexpr int vectors = tokens / Lane::width;
  return {"spmm",
          Format::layout,
          tokens,
          min_batch,
          tokens * static_cast<std::int64_t>(sizeof(float)),
          0,
          false,
          spmm_quads<Format, Lane, vectors>,
          spmm_quads_transposed<Format, Lane, vectors>,
          pack_tile_f32<tokens>,
          store_tile_f32<tokens>};
}

/// Kernels for tiles of tokens of one format, as far as half the registers hold the sums of a lane. The batch from
/// which a kernel is preferred is where padding its tile costs less than another pass over the weight with a smaller
/// one.
template <class Format>
constexpr void add_tiles(KernelTable& table) {
  constexpr int widest = Format::height == 1 ? 64 : kRegisters / 2 / Format::height * Vector::width;
  table.add(tile<Format, Eight, 8>(kMostFewTokens + 1));
  if constexpr (widest >= 16) table.add(tile<Format, Vector, 16>(11));
  if constexpr (widest >= 32) table.add(tile<Format, Vector, 32>(22));
  if constexpr (widest >= 64) table.add(tile<Format, Vector, 64>(49));
}

template <class Format>
constexpr void add_floats(KernelTable& table) {
  add_few_tokens<Format>(table);
  add_tiles<Format>(table);
}

template <class Format, int tokens>
constexpr Kernel bytes(const char* name, std::int64_t min_batch, sparsekit::MultiplyFn multiply,
                       sparsekit::StoreFn store) {
  return {name,    Format::layout,        tokens, min_batch, tokens, head_bytes(tokens), true, multiply,
          nullptr, pack_bytes_s8<tokens>, store};
}

#if defined(SPARSEKIT_PICKS_BYTES)
template <int tokens>
constexpr void add_bytes(KernelTable& table, std::int64_t min_batch) {
  table.add(bytes<Codes, tokens>("spmv", min_batch, spmv_quads_s8<Codes, tokens>, store_lanes_s8<Codes>));
  table.add(bytes<Codes4x1, tokens>("spmv", min_batch, spmv_quads_s8<Codes4x1, tokens>, store_lanes_s8<Codes4x1>));
}

constexpr void add_few_bytes(KernelTable& table) {
  add_bytes<1>(table, 1);
  add_bytes<2>(table, 2);
  add_bytes<4>(table, 3);
  add_bytes<8>(table, 5);
#ifndef SPARSEKIT_INTERLEAVES_BYTES
  add_bytes<64>(table, 33);
#endif
}
#elif defined(SPARSEKIT_INTERLEAVES_BYTES)
template <int tokens>
constexpr void add_bytes(KernelTable& table, std::int64_t min_batch) {
  table.add(bytes<Codes, tokens>("spmv", min_batch, spmv_quads_lookup_s8<Codes, tokens>, store_sums_s8));
  table.add(bytes<Codes4x1, tokens>("spmv", min_batch, spmv_quads_lookup_s8<Codes4x1, tokens>, store_sums_s8));
}

constexpr void add_few_bytes(KernelTable& table) {
  add_bytes<1>(table, 1);
  add_bytes<2>(table, 2);
  add_bytes<4>(table, 3);
}
#else
constexpr void add_few_bytes(KernelTable& table) {
  table.add(bytes<Codes, 1>("spmv_rows", 1, spmv_quads_rows_s8<Codes>, store_sums_s8));
  table.add(bytes<Codes4x1, 1>("spmv_rows", 1, spmv_quads_rows_s8<Codes4x1>, store_sums_s8));
}
#endif

#ifdef SPARSEKIT_INTERLEAVES_BYTES
template <class Format>
constexpr void add_byte_tile(KernelTable& table) {
  Kernel tile = bytes<Format, kByteTile>("spmm", kFewestInterleaved, spmm_quads_s8<Format>, store_tile_s8);
  tile.pack = pack_tile_s8;
  table.add(tile);
}

constexpr void add_byte_tiles(KernelTable& table) {
  add_byte_tile<Codes>(table);
  add_byte_tile<Codes4x1>(table);
}
#else
constexpr void add_byte_tiles(KernelTable&) {}
#endif

std::int64_t attention_scratch(std::int64_t head_dim, std::int64_t value_dim) {
  const std::int64_t few = few_floats(head_dim, value_dim);
  const std::int64_t many = AttentionTile<kAttentionVectors>::floats(head_dim, value_dim);
  return few > many ? few : many;
}

constexpr sparsekit::AttentionKernels kAttention{attention_few_f32, attention_f32, kMostFewQueries,
                                                 AttentionTile<kAttentionVectors>::lanes, attention_scratch};

constexpr KernelTable table() {
  KernelTable all{peak_f32, 2 * kPeakChains * Vector::width, kAttention, add_layer_norm_f32, 0, {}};
  add_floats<Float>(all);
  add_floats<Brain>(all);
  add_floats<Half>(all);
  add_floats<Float4x1>(all);
  add_floats<Brain4x1>(all);
  add_floats<Half4x1>(all);
  add_few_bytes(all);
  add_byte_tiles(all);
  return all;
}

}  // namespace

extern "C" const sparsekit::KernelTable SPARSEKIT_TABLE = table();
