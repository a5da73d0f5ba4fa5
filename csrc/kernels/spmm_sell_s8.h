// SpMM: sparse int8 weight times a tile of tokens of bytes, for instruction sets that cannot permute bytes across
// registers, or where that takes longer for many tokens.
//
//   for every few overlapping column blocks     their part of the activation: 320 * tile bytes
//     for each slice, and each row group of it  four vectors of accumulators a row, loaded and stored once
//       for each of the column blocks
//         for each quad                         its four rows of the activation, interleaved to four bytes a token
//           for each row of the row group       broadcast its four values, multiply and add: one `dot` a vector
//
// Per nonzero: 2 bytes of weight (1.25 in 4x1 blocks), a load of `tile` bytes, a quarter of a broadcast, a `dot`.
// Interleaving is the larger part of the work: it pays best for 4x1 blocks, whose four rows share it. The last entries
// of a row may be padding: value 0.
//
//   activation   head as in tokens_s8.h, then [features rounded up to 128, tile] bytes, tokens in an order in which
//                interleaving gives them back one after the other
//   sums         int32 [rows, tile]
#pragma once

#include <cstddef>

#include "sell_slice.h"
#include "tile_f32.h"
#include "tokens_s8.h"

namespace {

/// Tokens of a tile: one vector of bytes, four of sums.
inline constexpr int kByteTile = 4 * Vec::width;

/// Tokens whose bytes are brought into the order of a tile together, and features.
inline constexpr int kBytesTogether = 16;
inline constexpr int kChunk = 64;

/// The token whose byte lies at `place` of a tile: interleaving takes four bytes of every 16 for each of four vectors.
constexpr int token_at(int place) {
  constexpr int quarter = kByteTile / 4;
  return place % 16 / 4 * quarter + place / 16 * 4 + place % 4;
}

/// Quantizes whole tokens; tokens beyond the valid ones are zero.
template <int tile>
bool pack_tile_s8(const sparsekit::Input& input, sparsekit::Range features, std::int64_t padded_features,
                  void* packed) {
  auto* scales = static_cast<TokenScale*>(packed);
  auto* bytes = static_cast<std::uint8_t*>(packed) + head_bytes(tile);
  bool usable = true;
  for (std::int64_t t = 0; t < tile; ++t) {
    scales[t] = t < input.tokens ? scale_of(input.data + t * input.stride, features.last) : TokenScale{1.0F, 0};
    usable = usable && scales[t].scale != 0.0F;
  }
  if (!usable) return false;
  for (int first = 0; first < tile; first += kBytesTogether) {
    for (std::int64_t f = 0; f < padded_features; f += kChunk) {
      std::uint8_t rows[kBytesTogether][kChunk] = {};
      const std::int64_t count = min(kChunk, features.last - f);
      for (int i = 0; i < kBytesTogether && count > 0; ++i) {
        const int t = token_at(first + i);
        if (t >= input.tokens) continue;
        quantize(input.data + t * input.stride + f, count, Vec::broadcast(1.0F / scales[t].scale), scales[t].zero_point,
                 rows[i]);
      }
      transpose_bytes(rows[0], kChunk, bytes + f * tile + first, tile);
    }
  }
  return true;
}

/// Column blocks whose part of the activation stays in L1: 20 KB with a vector of 64 bytes.
inline constexpr std::int64_t kBlocksTogether = 4;

/// The slices of the same rows in column blocks next to each other, and these blocks' parts of the activation.
template <class Format>
struct SliceRow {
  Slice<Format> slices[kBlocksTogether];
  const std::uint8_t* inputs[kBlocksTogether];
  std::int64_t count;

  static SliceRow of(const sparsekit::PackedWeight& weight, std::int64_t column_block, std::int64_t slot,
                     const std::uint8_t* bytes) {
    SliceRow row;
    row.count = min(kBlocksTogether, weight.column_blocks - column_block);
    for (std::int64_t i = 0; i < row.count; ++i) {
      row.slices[i] = Slice<Format>::of(weight, column_block + i, slot);
      row.inputs[i] = bytes + weight.first_column(column_block + i) * kByteTile;
    }
    return row;
  }
};

/// Adds the entries of one row group to the sums of `rows` of its rows, from `first_row` on.
template <class Format, int rows>
[[gnu::always_inline]] inline void add_row_group_s8(const SliceRow<Format>& row, unsigned slot, int first_row,
                                                    bool begin, std::int32_t* sums) {
  constexpr int size = 4 * rows;
  VecI32 accumulator[static_cast<std::size_t>(size)];
  for (int v = 0; v < size; ++v) accumulator[v] = begin ? VecI32::zero() : VecI32::load(sums + v * Vec::width);
  for (std::int64_t b = 0; b < row.count; ++b) {
    Entries<Format> entries(row.slices[b], slot);
    for (unsigned i = 0; i < entries.count; i += sparsekit::kQuad, entries.next()) {
      VecU8 each[4];
      for (unsigned k = 0; k < sparsekit::kQuad; ++k) {
        each[k] = VecU8::load(entries.template input<kByteTile>(row.inputs[b], k));
      }
      interleave(each);
      for (int r = 0; r < rows; ++r) {
        const auto values = Int8Quads::broadcast(entries.value(0, first_row + r));
        for (int v = 0; v < 4; ++v) accumulator[r * 4 + v] = dot(accumulator[r * 4 + v], each[v], values);
      }
    }
  }
  for (int v = 0; v < size; ++v) accumulator[v].store(sums + v * Vec::width);
}

template <class Format>
void spmm_sell_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results, sparsekit::Range rows) {
  constexpr int together = Format::height < kS8RowsInRegisters ? Format::height : kS8RowsInRegisters;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(kByteTile);
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  for (std::int64_t b = 0; b < weight.column_blocks; b += kBlocksTogether) {
    for (std::int64_t first = groups.first; first < groups.last; first += sparsekit::kSlice) {
      const auto row = SliceRow<Format>::of(weight, b, first, bytes);
      std::int32_t* window = sums + (sparsekit::sort_window_of(first) - groups.first) * Format::height * kByteTile;
      for (unsigned slot = 0; slot < sparsekit::kSlice; ++slot) {
        std::int32_t* group_sums = window + row.slices[0].slot_to_row[slot] * Format::height * kByteTile;
        for (int r = 0; r < Format::height; r += together) {
          add_row_group_s8<Format, together>(row, slot, r, b == 0, group_sums + r * kByteTile);
        }
      }
    }
  }
}

/// As `store_tile_f32`, from integer sums.
template <int tile>
void store_tile_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                   sparsekit::Range rows, const sparsekit::Output& out) {
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = 0; first < out.tokens; first += Vec::width) {
      const std::int64_t count = min(Vec::width, out.tokens - first);
      for (std::int64_t r = rows.first; r < rows.last; r += Vec::width) {
        const RowScales scales = RowScales::of(weight, out, r, rows.last);
        VecI32 square[Vec::width];
        for (int i = 0; i < Vec::width; ++i) {
          const std::int32_t* row = sums + (r - rows.first + i) * tile + first;
          square[i] = i < scales.count ? VecI32::load(row) : VecI32::zero();
        }
        transpose(square);
        for (std::int64_t t = 0; t < count; ++t) {
          float* y = out.data + (first + t) * out.stride + r;
          __builtin_prefetch(y + kStoreAhead, 1);
          store_partial(activate(scales.output(square[t], tokens[first + t])), y, scales.count);
        }
      }
    }
  });
}

}  // namespace
