// Sparse int8 weight times a tile of tokens of bytes, for instruction sets that cannot pick bytes from registers, or
// where that takes longer for many tokens.
//
//   for every few sliding blocks                their part of the activation: 320 * tile bytes
//     for each lane                             four vectors of sums an output feature, loaded and stored once
//       for each of the blocks
//         for each four entries                 their four rows of the activation, interleaved to four bytes a token
//           for each output feature of the lane broadcast its four codes, multiply and add: one `dot` a vector
//
// Interleaving is the larger part of the work: it pays best for lanes of four rows, which share it. The last entries of
// a lane may be padding: code 0.
//
//   activation   head as in tokens_s8.h, then [features rounded up to 128, tile] bytes, tokens in an order in which
//                interleaving gives them back one after the other
//   sums         int32 [rows, tile]
#pragma once

#include <cstddef>

#include "quads.h"
#include "tile_f32.h"
#include "tokens_s8.h"

namespace {

/// Tokens of a tile: one vector of bytes, four of sums.
inline constexpr int kByteTile = 4 * Vector::width;

/// Tokens whose bytes are brought into the order of a tile together, and features.
inline constexpr int kBytesTogether = 16;
inline constexpr int kChunk = 64;

/// The token whose byte lies at `place` of a tile: interleaving takes four bytes of every 16 for each of four vectors.
constexpr int token_at(int place) {
  constexpr int quarter = kByteTile / 4;
  return place % 16 / 4 * quarter + place / 16 * 4 + place % 4;
}

/// Quantises whole tokens; tokens beyond the valid ones are zero.
inline bool pack_tile_s8(const sparsekit::Input& input, sparsekit::RowRange features, std::int64_t padded_features,
                         void* packed) {
  auto* scales = static_cast<TokenScale*>(packed);
  auto* bytes = static_cast<std::uint8_t*>(packed) + head_bytes(kByteTile);
  bool usable = true;
  for (std::int64_t t = 0; t < kByteTile; ++t) {
    scales[t] = t < input.tokens ? scale_of(input.data + t * input.stride, features.last) : TokenScale{1.0F, 0};
    usable = usable && scales[t].scale != 0.0F;
  }
  if (!usable) return false;
  for (int first = 0; first < kByteTile; first += kBytesTogether) {
    for (std::int64_t f = 0; f < padded_features; f += kChunk) {
      std::uint8_t rows[kBytesTogether][kChunk] = {};
      const std::int64_t count = smaller(kChunk, features.last - f);
      for (int i = 0; i < kBytesTogether && count > 0; ++i) {
        const int t = token_at(first + i);
        if (t >= input.tokens) continue;
        quantise(input.data + t * input.stride + f, count, Vector::broadcast(1.0F / scales[t].scale),
                 scales[t].zero_point, rows[i]);
      }
      transpose_bytes(rows[0], kChunk, bytes + f * kByteTile + first, kByteTile);
    }
  }
  return true;
}

/// Sliding blocks whose part of the activation stays in L1: 20 KB with a vector of 64 bytes.
inline constexpr std::int64_t kBlocksTogether = 4;

/// The cells of a tile of lanes in blocks next to each other, and the blocks' parts of the activation.
template <class Format>
struct CellRow {
  Cell<Format> cells[kBlocksTogether];
  const std::uint8_t* inputs[kBlocksTogether];
  std::int64_t count;

  static CellRow of(const sparsekit::PackedWeight& weight, std::int64_t block, std::int64_t position,
                    const std::uint8_t* bytes) {
    CellRow row;
    row.count = smaller(kBlocksTogether, weight.blocks - block);
    for (std::int64_t i = 0; i < row.count; ++i) {
      row.cells[i] = Cell<Format>::of(weight, block + i, position);
      row.inputs[i] = bytes + weight.start(block + i) * kByteTile;
    }
    return row;
  }
};

/// Adds the entries of one lane to the sums of `rows` of its output features, from `row` on.
template <class Format, int rows>
[[gnu::always_inline]] inline void add_lane_s8(const CellRow<Format>& blocks, unsigned lane, int row, bool begin,
                                               std::int32_t* sums) {
  constexpr int size = 4 * rows;
  Sums sum[static_cast<std::size_t>(size)];
  for (int v = 0; v < size; ++v) sum[v] = begin ? Sums::zero() : Sums::load(sums + v * Vector::width);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    Entries<Format> entries(blocks.cells[b], lane);
    for (unsigned i = 0; i < entries.count; i += sparsekit::kQuad, entries.next()) {
      TokenBytes each[4];
      for (unsigned k = 0; k < sparsekit::kQuad; ++k) {
        each[k] = TokenBytes::load(entries.template input<kByteTile>(blocks.inputs[b], k));
      }
      interleave(each);
      for (int r = 0; r < rows; ++r) {
        const auto codes = FourCodes::broadcast(entries.value(0, row + r));
        for (int v = 0; v < 4; ++v) sum[r * 4 + v] = dot(sum[r * 4 + v], each[v], codes);
      }
    }
  }
  for (int v = 0; v < size; ++v) sum[v].store(sums + v * Vector::width);
}

template <class Format>
void spmm_quads_s8(const sparsekit::PackedWeight& weight, const void* activation, void* results,
                   sparsekit::RowRange rows) {
  constexpr int together = Format::height < kRowsOfBytes ? Format::height : kRowsOfBytes;
  const auto* bytes = static_cast<const std::uint8_t*>(activation) + head_bytes(kByteTile);
  auto* sums = static_cast<std::int32_t*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  for (std::int64_t b = 0; b < weight.blocks; b += kBlocksTogether) {
    for (std::int64_t first = lanes.first; first < lanes.last; first += sparsekit::kLanes) {
      const auto blocks = CellRow<Format>::of(weight, b, first, bytes);
      std::int32_t* window = sums + (sparsekit::window_of(first) - lanes.first) * Format::height * kByteTile;
      for (unsigned lane = 0; lane < sparsekit::kLanes; ++lane) {
        std::int32_t* lane_sums = window + blocks.cells[0].lanes[lane] * Format::height * kByteTile;
        for (int r = 0; r < Format::height; r += together) {
          add_lane_s8<Format, together>(blocks, lane, r, b == 0, lane_sums + r * kByteTile);
        }
      }
    }
  }
}

/// As `store_tile_f32`, from whole sums.
inline void store_tile_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                          sparsekit::RowRange rows, const sparsekit::Output& out) {
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = 0; first < out.tokens; first += Vector::width) {
      const std::int64_t count = smaller(Vector::width, out.tokens - first);
      for (std::int64_t r = rows.first; r < rows.last; r += Vector::width) {
        const RowScales scales = RowScales::of(weight, out, r, rows.last);
        Sums block[Vector::width];
        for (int i = 0; i < Vector::width; ++i) {
          const std::int32_t* row = sums + (r - rows.first + i) * kByteTile + first;
          block[i] = i < scales.count ? Sums::load(row) : Sums::zero();
        }
        transpose(block);
        for (std::int64_t t = 0; t < count; ++t) {
          float* y = out.data + (first + t) * out.stride + r;
          __builtin_prefetch(y + kStoreAhead, 1);
          store_up_to(activate(scales.output(block[t], tokens[first + t])), y, scales.count);
        }
      }
    }
  });
}

}  // namespace
