// The kernel table of an instruction set, with its thresholds. `table.cpp` fills it once per instruction set.
#pragma once

#include "attention_args.h"
#include "layer_norm_args.h"
#include "linear_args.h"
#include "packed_weight.h"
#include "thresholds.h"

namespace sparsekit {

/// Multiplies the weight rows of `rows` with one tile of tokens. `activation` is what `PackFn` of the same kernel
/// wrote, `sums` what its `StoreFn` reads; `sums` is overwritten.
///
/// The transposed product has the same shape: `rows` are then input features, from border to border of column blocks,
/// and `activation` is the gradient of the output.
using MultiplyFn = void (*)(const PackedWeight& weight, const void* activation, void* sums, Range rows);

/// Packs the features `features` of the tile's tokens in the kernel's order. Tokens beyond the valid ones are zero.
/// Returns false if a token has values that the kernel does not support; the result is then invalid.
using PackFn = bool (*)(const Input& input, Range features, std::int64_t padded_features, void* activation);

/// Adds the bias to the sums of `rows`, applies the activation function and writes the valid tokens row-major.
using StoreFn = void (*)(const PackedWeight& weight, const void* activation, const void* sums, Range rows,
                         const Output& output);

struct Kernel {
  const char* name;  // with the layout's and the tile it is whole: spmm, sell_f32, 16
  Layout layout;
  std::int64_t tile;            // tokens computed together
  MinTokens min_tokens;         // tokens left from which it is preferred to the kernels above it
  std::int64_t input_bytes;     // of a packed tile, for each input feature
  std::int64_t head_bytes = 0;  // of a packed tile, before them
  bool packs_whole = false;     // tokens in one piece, because what is written depends on all of a token
  MultiplyFn multiply;
  MultiplyFn multiply_transposed = nullptr;
  PackFn pack = nullptr;  // null: the tile is one token and its row is used as it lies
  StoreFn store;
};

inline constexpr int kMaxKernels = 128;

/// Runs `rounds` times `peak_flop` floating-point operations from registers only; the result means nothing.
using PeakFn = float (*)(std::int64_t rounds);

/// Attention of all queries of a head.
using AttentionFn = void (*)(const AttentionHead& head, float* scratch);

/// Sums of a few queries of a head over a part of its keys.
using AttendKeysFn = void (*)(const AttentionHead& head, Range keys, float* sums, float* scratch);

/// Outputs of a few queries of a head, from the sums of `parts` parts of its keys, which lie one after the other.
using FinishKeysFn = void (*)(const AttentionHead& head, std::int64_t parts, float* sums);

/// Stores a row of a key or a value as the kernels read it. Returns its scale, 1 where rows have none.
using StoreRowFn = float (*)(const float* x, std::int64_t features, void* stored);

/// Of one type of keys and values.
struct AttentionKernels {
  AttentionFn few;   // for at most `max_few` queries
  AttentionFn many;  // for any number, in tiles of `tile`
  AttendKeysFn attend_keys;
  FinishKeysFn finish_keys;
  StoreRowFn store_row;
  std::int64_t max_few;
  std::int64_t tile;
  std::int64_t (*scratch)(std::int64_t head_dim, std::int64_t value_dim);  // floats that all of them work with
  std::int64_t (*sums)(std::int64_t queries, std::int64_t head_dim,
                       std::int64_t value_dim);  // floats of `AttendKeysFn`
};

/// Layer normalization of sums of rows.
using LayerNormFn = void (*)(const LayerNormRows& rows);

struct KernelTable {
  Vendor vendor = Vendor::others;  // for which `min_tokens` are read
  PeakFn peak;
  std::int64_t peak_flop;
  AttentionKernels attention;
  AttentionKernels attention_bf16;  // of keys and values alone
  AttentionKernels attention_s8;
  LayerNormFn add_layer_norm;
  LayoutThresholds layouts;
  int size = 0;
  Kernel kernels[kMaxKernels] = {};  // by ascending tile within a layout

  constexpr void add(const Kernel& kernel) { kernels[size++] = kernel; }
};

}  // namespace sparsekit
