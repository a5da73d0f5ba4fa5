// Compiled once per instruction set (cmake/InstructionSets.cmake), with that set's flags and header. Everything but
// the table has internal linkage, so no code compiled for a newer machine can be linked into generic objects.
#include "table.h"

#include SPARSEKIT_ISA_HEADER

#include "attention_few.h"
#include "attention_many.h"
#include "gemm_s4.h"
#include "gemm_s8.h"
#include "isa/vector.h"
#include "layer_norm_f32.h"
#include "peak_f32.h"
#include "spmm_csr.h"
#include "spmm_csr_four.h"
#include "spmm_sell.h"
#include "spmm_sell_s8.h"
#include "spmm_sell_transposed.h"
#include "spmv_bitmask.h"
#include "spmv_csr.h"
#include "spmv_sell_lookup_s8.h"
#include "spmv_sell_permute.h"
#include "spmv_sell_permute_s8.h"
#include "spmv_sell_plain.h"
#include "spmv_sell_plain_s8.h"
#include "store_slots_s8.h"
#include "tile_f32.h"

namespace {

using sparsekit::Kernel;
using sparsekit::KernelTable;
using sparsekit::min_tokens;
using sparsekit::MinTokens;

constexpr std::int64_t float_bytes(int tokens) { return tokens * static_cast<std::int64_t>(sizeof(float)); }

template <class Format, int tokens>
constexpr Kernel spmv_permute(std::int64_t from) {
  return {.name = "spmv",
          .layout = Format::layout,
          .tile = tokens,
          .min_tokens = min_tokens(from),
          .input_bytes = float_bytes(tokens),
          .multiply = spmv_sell_permute<Format, tokens>,
          .pack = pack_inputs_f32<tokens>,
          .store = store_tokens_f32<Format::height>};
}

template <class Format>
constexpr Kernel spmv_plain() {
  return {.name = "spmv_plain",
          .layout = Format::layout,
          .tile = 1,
          .min_tokens = min_tokens(1),
          .input_bytes = float_bytes(1),
          .multiply = spmv_sell_plain<Format>,
          .store = store_tokens_f32<1>};
}

template <class Format, class V, int tokens>
constexpr Kernel spmm(std::int64_t from) {
  constexpr int vectors = tokens / V::width;
  return {.name = "spmm",
          .layout = Format::layout,
          .tile = tokens,
          .min_tokens = min_tokens(from),
          .input_bytes = float_bytes(tokens),
          .multiply = spmm_sell<Format, V, vectors>,
          .multiply_transposed = spmm_sell_transposed<Format, V, vectors>,
          .pack = pack_tile_f32<tokens>,
          .store = store_tile_f32<tokens>};
}

template <class Format>
constexpr sparsekit::MultiplyFn one_token_of_csr() {
  if constexpr (Format::masked && kGathersInputs) {
    return spmv_bitmask<Format>;
  } else {
    return spmv_csr<Format>;
  }
}

template <class Format>
constexpr Kernel spmv_of_csr() {
  return {.name = "spmv",
          .layout = Format::layout,
          .tile = 1,
          .min_tokens = min_tokens(1),
          .input_bytes = float_bytes(1),
          .multiply = one_token_of_csr<Format>(),
          .store = store_tokens_f32<1, Format::scaled>};
}

template <class Format>
constexpr Kernel spmm_of_csr_four(std::int64_t from) {
  return {.name = "spmm",
          .layout = Format::layout,
          .tile = kFour,
          .min_tokens = min_tokens(from),
          .input_bytes = float_bytes(kFour),
          .multiply = spmm_csr_four<Format>,
          .pack = pack_tile_f32<kFour>,
          .store = store_tile_f32<kFour, Format::scaled>};
}

/// Weights with int8 values have no gradient for their input.
template <class Format, class V, int vectors>
constexpr sparsekit::MultiplyFn transposed_of_csr() {
  if constexpr (Format::scaled) {
    return nullptr;
  } else {
    return spmm_csr_transposed<Format, V, vectors>;
  }
}

template <class Format, class V, int tokens>
constexpr Kernel spmm_of_csr(std::int64_t from) {
  constexpr int vectors = tokens / V::width;
  return {.name = "spmm",
          .layout = Format::layout,
          .tile = tokens,
          .min_tokens = min_tokens(from),
          .input_bytes = float_bytes(tokens),
          .multiply = spmm_csr<Format, V, vectors>,
          .multiply_transposed = transposed_of_csr<Format, V, vectors>(),
          .pack = pack_tile_f32<tokens>,
          .store = store_tile_f32<tokens, Format::scaled>};
}

template <class Format, int tokens>
constexpr Kernel spmv_permute_s8(MinTokens from) {
  return {.name = "spmv",
          .layout = Format::layout,
          .tile = tokens,
          .min_tokens = from,
          .input_bytes = tokens,
          .head_bytes = head_bytes(tokens),
          .packs_whole = true,
          .multiply = spmv_sell_permute_s8<Format, tokens>,
          .pack = pack_bytes_s8<tokens>,
          .store = store_slots_s8<Format>};
}

template <class Format, int tokens>
constexpr Kernel spmv_lookup_s8(std::int64_t from) {
  return {.name = "spmv",
          .layout = Format::layout,
          .tile = tokens,
          .min_tokens = min_tokens(from),
          .input_bytes = tokens,
          .head_bytes = head_bytes(tokens),
          .packs_whole = true,
          .multiply = spmv_sell_lookup_s8<Format, tokens>,
          .pack = pack_bytes_s8<tokens>,
          .store = store_sums_s8};
}

template <class Format>
constexpr Kernel spmv_plain_s8() {
  return {.name = "spmv_plain",
          .layout = Format::layout,
          .tile = 1,
          .min_tokens = min_tokens(1),
          .input_bytes = 1,
          .head_bytes = head_bytes(1),
          .packs_whole = true,
          .multiply = spmv_sell_plain_s8<Format>,
          .pack = pack_bytes_s8<1>,
          .store = store_sums_s8};
}

template <class Format>
constexpr Kernel spmm_s8(MinTokens from) {
  return {.name = "spmm",
          .layout = Format::layout,
          .tile = kByteTile,
          .min_tokens = from,
          .input_bytes = kByteTile,
          .head_bytes = head_bytes(kByteTile),
          .packs_whole = true,
          .multiply = spmm_sell_s8<Format>,
          .pack = pack_tile_s8<kByteTile>,
          .store = store_tile_s8<kByteTile>};
}

template <class Value>
constexpr Kernel gemm_f32(sparsekit::Layout layout) {
  return {.name = "gemm",
          .layout = layout,
          .tile = kGemmTile,
          .min_tokens = min_tokens(1),
          .input_bytes = 0,
          .head_bytes = kTileRowsBytes,
          .packs_whole = true,
          .multiply = gemm<Value, float>,
          .pack = pack_rows_f32,
          .store = store_tokens_f32<1>};
}

constexpr Kernel gemm_s8() {
  return {.name = "gemm",
          .layout = sparsekit::Layout::dense_s8,
          .tile = kGemmTile,
          .min_tokens = min_tokens(1),
          .input_bytes = kGemmTile * kQuadParts,
          .head_bytes = kGemmHead,
          .packs_whole = true,
          .multiply = gemm<std::int8_t, std::int32_t>,
          .pack = pack_rows_s8,
          .store = store_rows_s8};
}

constexpr Kernel gemm_of_int4() {
  return {.name = "gemm",
          .layout = sparsekit::Layout::dense_s4,
          .tile = kGemmTile,
          .min_tokens = min_tokens(1),
          .input_bytes = kGemmTile * 2,  // a byte, and the numbers of the groups
          .head_bytes = kTileRowsBytes + kGemmTile * 64,
          .packs_whole = true,
          .multiply = gemm_s4,
          .pack = pack_rows_s4,
          .store = store_tokens_f32<1>};
}

/// Whether packing prefers CSR for float values. Tiles of the other layout then have at most eight tokens: they only
/// serve weights that another machine packed.
constexpr bool kPrefersCsr = kThresholds.layouts.min_csr_sparsity == 0.0;
constexpr int kWidestOther = 8;

/// Float values. Tiles of tokens are as wide as half the registers hold the accumulators of a row group. A tile is
/// preferred from where padding it costs less than another pass over the weight with a smaller one.
template <class Format>
constexpr void add_float_kernels(KernelTable& table) {
  constexpr int in_registers = Format::height == 1 ? 64 : kRegisters / 2 / Format::height * Vec::width;
  constexpr int widest = kPrefersCsr ? kWidestOther : in_registers;
  if constexpr (kPermutesInputs) {
    table.add(spmv_permute<Format, 1>(1));
    table.add(spmv_permute<Format, 2>(2));
    if constexpr (kThresholds.max_spmv_tokens > 2) table.add(spmv_permute<Format, 4>(3));
  } else {
    table.add(spmv_plain<Format>());
  }
  table.add(spmm<Format, Vec8, 8>(kThresholds.max_spmv_tokens + 1));
  if constexpr (widest >= 16) table.add(spmm<Format, Vec, 16>(11));
  if constexpr (widest >= 32) table.add(spmm<Format, Vec, 32>(22));
  if constexpr (widest >= 64) table.add(spmm<Format, Vec, 64>(49));
}

/// The same of CSR. The part of a tile in a column block fills L1 with 32 tokens. Bitmasks, which save memory, have a
/// few of them.
template <class Format>
constexpr void add_csr_kernels(KernelTable& table) {
  constexpr int in_registers = Format::height == 1 ? 32 : kRegisters / 2 / Format::height * Vec::width;
  constexpr int widest = kPrefersCsr ? in_registers : kWidestOther;
  table.add(spmv_of_csr<Format>());
  if constexpr (!Format::masked && kGathersInputs) table.add(spmm_of_csr_four<Format>(2));
  if constexpr (!Format::masked && !kGathersInputs) table.add(spmm_of_csr<Format, Vec, 4>(2));
  table.add(spmm_of_csr<Format, Vec8, 8>(Format::masked ? 2 : 5));
  if constexpr (!Format::masked && widest >= 16) table.add(spmm_of_csr<Format, Vec, 16>(11));
  if constexpr (widest >= 32) table.add(spmm_of_csr<Format, Vec, 32>(Format::masked ? 11 : 22));
}

/// int8 values.
template <class Format>
constexpr void add_s8_kernels(KernelTable& table) {
  if constexpr (kPermutesBytes) {
    table.add(spmv_permute_s8<Format, 1>(min_tokens(1)));
    table.add(spmv_permute_s8<Format, 2>(min_tokens(2)));
    table.add(spmv_permute_s8<Format, 4>(min_tokens(3)));
    table.add(spmv_permute_s8<Format, 8>(min_tokens(5)));
    table.add(spmv_permute_s8<Format, 64>(kThresholds.min_permuted_tile));
  } else if constexpr (kInterleavesBytes) {
    table.add(spmv_lookup_s8<Format, 1>(1));
    table.add(spmv_lookup_s8<Format, 2>(2));
    table.add(spmv_lookup_s8<Format, 4>(3));
  } else {
    table.add(spmv_plain_s8<Format>());
  }
  if constexpr (kInterleavesBytes) table.add(spmm_s8<Format>(kThresholds.min_interleaved));
}

template <class Entry>
std::int64_t attention_scratch(std::int64_t head_dim, std::int64_t value_dim) {
  const std::int64_t few = kFewFloats + few_sums(kMaxFewQueries, head_dim, value_dim);
  const std::int64_t many = AttentionTile<kAttentionVectors>::floats(head_dim, value_dim);
  return max(few, many + widened_floats<Entry>(head_dim, value_dim));
}

template <class Entry>
constexpr sparsekit::AttentionKernels attention_of() {
  return {.few = attention_few<Entry>,
          .many = attention_many<Entry>,
          .attend_keys = attend_keys_few<Entry>,
          .finish_keys = finish_few,
          .store_row = store_row<Entry>,
          .max_few = kMaxFewQueries,
          .tile = AttentionTile<kAttentionVectors>::queries,
          .scratch = attention_scratch<Entry>,
          .sums = few_sums};
}

constexpr KernelTable table() {
  KernelTable all{.peak = peak_f32,
                  .peak_flop = 2 * kPeakChains * Vec::width,
                  .attention = attention_of<float>(),
                  .attention_bf16 = attention_of<sparsekit::BFloat16>(),
                  .attention_s8 = attention_of<std::int8_t>(),
                  .add_layer_norm = add_layer_norm_f32,
                  .layouts = kThresholds.layouts};
  add_float_kernels<SellF32>(all);
  add_float_kernels<SellBF16>(all);
  add_float_kernels<SellF16>(all);
  add_float_kernels<Sell4x1F32>(all);
  add_float_kernels<Sell4x1BF16>(all);
  add_float_kernels<Sell4x1F16>(all);
  add_csr_kernels<CsrF32>(all);
  add_csr_kernels<CsrBF16>(all);
  add_csr_kernels<CsrF16>(all);
  add_csr_kernels<Csr4x1F32>(all);
  add_csr_kernels<Csr4x1BF16>(all);
  add_csr_kernels<CsrS8>(all);
  add_csr_kernels<Csr4x1S8>(all);
  add_csr_kernels<Csr4x1F16>(all);
  add_csr_kernels<BitmaskF32>(all);
  add_csr_kernels<BitmaskBF16>(all);
  add_csr_kernels<BitmaskF16>(all);
  add_csr_kernels<BitmaskS8>(all);
  all.add(gemm_f32<float>(sparsekit::Layout::dense_f32));
  all.add(gemm_f32<sparsekit::BFloat16>(sparsekit::Layout::dense_bf16));
  all.add(gemm_f32<sparsekit::Float16>(sparsekit::Layout::dense_fp16));
  all.add(gemm_s8());
  all.add(gemm_of_int4());
  add_s8_kernels<SellS8>(all);
  add_s8_kernels<Sell4x1S8>(all);
  return all;
}

}  // namespace

extern "C" constinit const sparsekit::KernelTable SPARSEKIT_TABLE = table();
