// From sums of int8 weights by position to outputs, for kernels that leave them so.
//
//   for each window of 64 lanes
//     for every few tokens                      their sums come to L1 once
//       for each four vectors of output features   a whole window, or 16 lanes of four
//         for each token                        sums brought into the order of output features, scaled and stored
//
//   sums     int32 [tile, height, positions], lanes rounded up to 16
#pragma once

#include "quads.h"
#include "tokens_s8.h"

namespace {

/// Tokens whose sums of a window stay in L1 (4x1 blocks: 8 KB).
inline constexpr std::int64_t kStoredTogether = 8;

/// Output features that are stored together.
inline constexpr std::int64_t kStrip = kRowsTogether * Vector::width;

/// Where the sums of a strip are.
template <class Format>
struct Strip {
  static constexpr int parts = kRowsTogether / Format::height;
  Positions positions[static_cast<std::size_t>(parts)];  // of its lanes in the window
  const std::int32_t* window;  // sums of the first token and the first output feature of each lane, by position
  std::int64_t lanes;          // of the window
  std::int64_t stride;         // to the next output feature of each lane

  /// The sums of one token in the order of output features; `whole` when the window has all its lanes.
  template <bool whole>
  void bring(std::int64_t token, Sums (&rows)[kRowsTogether]) const {
    for (int r = 0; r < Format::height; ++r) {
      const std::int32_t* sums = window + (token * Format::height + r) * stride;
      Sums from[kTilesOfWindow];
      for (std::int64_t i = 0; i < kTilesOfWindow; ++i) {
        const bool there = whole || i * sparsekit::kLanes < lanes;
        from[i] = there ? Sums::load(sums + i * sparsekit::kLanes) : Sums::zero();
      }
      for (int i = 0; i < parts; ++i) rows[r + i] = positions[i].choose(from);
    }
    if constexpr (Format::height > 1) interleave(rows);
  }
};

/// The strip that begins with `lane`; `sums` are those of `lanes`.
template <class Format>
inline Strip<Format> strip_of(const sparsekit::PackedWeight& weight, const std::int32_t* sums,
                              sparsekit::RowRange lanes, std::int64_t lane) {
  const std::int64_t stride = sparsekit::padded_lanes(lanes.last - lanes.first);
  const std::int64_t before = sparsekit::window_of(lane) - lanes.first;
  const std::uint8_t* p = weight.positions + lane;
  if constexpr (Format::height == 1) {
    return {{Positions(p), Positions(p + 16), Positions(p + 32), Positions(p + 48)},
            sums + before,
            stride - before,
            stride};
  } else {
    return {{Positions::by_four(p)}, sums + before, stride - before, stride};
  }
}

/// Stores the output features of a strip from `row` on; `whole` when it has all of them, and its window all its lanes.
template <bool whole, class Format, class Activate>
inline void store_strip_s8(const Strip<Format>& strip, const sparsekit::PackedWeight& weight, const TokenScale* tokens,
                           sparsekit::RowRange range, std::int64_t row, std::int64_t last, const sparsekit::Output& out,
                           const Activate& activate) {
  RowScales scales[kRowsTogether];
  for (int i = 0; i < kRowsTogether; ++i) {
    scales[i] = RowScales::of(weight, out, smaller(row + i * Vector::width, last), last);
  }
  for (std::int64_t t = range.first; t < range.last; ++t) {
    Sums rows[kRowsTogether];
    strip.template bring<whole>(t, rows);
    float* y = out.data + t * out.stride + row;
    for (int i = 0; i < kRowsTogether; ++i, y += Vector::width) {
      const Vector found = activate(scales[i].output(rows[i], tokens[t]));
      __builtin_prefetch(y + kStrip, 1);
      if (whole) {
        found.store(y);
      } else if (scales[i].count > 0) {
        store_up_to(found, y, scales[i].count);
      }
    }
  }
}

template <class Format>
void store_lanes_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                    sparsekit::RowRange rows, const sparsekit::Output& out) {
  constexpr std::int64_t window = sparsekit::kWindow * Format::height;
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  const sparsekit::RowRange lanes = lanes_of<Format>(rows);
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = rows.first; first < rows.last; first += window) {
      const std::int64_t last = smaller(first + window, rows.last);
      for (std::int64_t t = 0; t < out.tokens; t += kStoredTogether) {
        const sparsekit::RowRange range{t, smaller(t + kStoredTogether, out.tokens)};
        for (std::int64_t row = first; row < last; row += kStrip) {
          const auto strip = strip_of<Format>(weight, sums, lanes, row / Format::height);
          if (strip.lanes >= sparsekit::kWindow && row + kStrip <= last) {
            store_strip_s8<true>(strip, weight, tokens, range, row, last, out, activate);
          } else {
            store_strip_s8<false>(strip, weight, tokens, range, row, last, out, activate);
          }
        }
      }
    }
  });
}

}  // namespace
