// Store integer sums by slot as outputs, for int8 kernels that leave sums in slot order.
//
//   for each sort window of 64 rows
//     for every few tokens                         their sums come to L1 once
//       for each four vectors of output features   a whole sort window, or 16 row groups of four
//         for each token                           sums brought into the order of output features, scaled and stored
//
//   sums     int32 [tile, height, slots], rounded up to 16
#pragma once

#include "sell_slice.h"
#include "tokens_s8.h"

namespace {

/// Tokens whose sums of a sort window stay in L1 (4x1 blocks: 8 KB).
inline constexpr std::int64_t kStoredTogether = 8;

/// Output features that are stored together.
inline constexpr std::int64_t kPanel = kRowsTogether * Vec::width;

/// Where the sums of a panel of output features are.
template <class Format>
struct Panel {
  static constexpr int parts = kRowsTogether / Format::height;
  SlotIndex index[static_cast<std::size_t>(parts)];  // of its row groups in the sort window
  const std::int32_t* window;  // sums of the first token and the first row of each row group, by slot
  std::int64_t groups;         // of the sort window
  std::int64_t stride;         // to the next row of each row group

  /// The sums of one token in the order of output features; `whole` when the sort window has all its rows.
  template <bool whole>
  void bring(std::int64_t token, VecI32 (&rows)[kRowsTogether]) const {
    for (int r = 0; r < Format::height; ++r) {
      const std::int32_t* sums = window + (token * Format::height + r) * stride;
      VecI32 from[kSlicesOfWindow];
      for (std::int64_t i = 0; i < kSlicesOfWindow; ++i) {
        const bool there = whole || i * sparsekit::kSlice < groups;
        from[i] = there ? VecI32::load(sums + i * sparsekit::kSlice) : VecI32::zero();
      }
      for (int i = 0; i < parts; ++i) rows[r + i] = index[i].permute(from);
    }
    if constexpr (Format::height > 1) interleave(rows);
  }
};

/// The panel that begins with `row_group`; `sums` are those of `groups`.
template <class Format>
inline Panel<Format> panel_of(const sparsekit::PackedWeight& weight, const std::int32_t* sums, sparsekit::Range groups,
                              std::int64_t row_group) {
  const std::int64_t stride = sparsekit::padded_to_slices(groups.last - groups.first);
  const std::int64_t before = sparsekit::sort_window_of(row_group) - groups.first;
  const std::uint8_t* p = weight.row_to_slot + row_group;
  if constexpr (Format::height == 1) {
    return {{SlotIndex(p), SlotIndex(p + 16), SlotIndex(p + 32), SlotIndex(p + 48)},
            sums + before,
            stride - before,
            stride};
  } else {
    return {{SlotIndex::by_four(p)}, sums + before, stride - before, stride};
  }
}

/// Stores the output features of a panel from `row` on; `whole` when it has all of them, and its sort window too.
template <bool whole, class Format, class Activate>
inline void store_panel_s8(const Panel<Format>& panel, const sparsekit::PackedWeight& weight, const TokenScale* tokens,
                           sparsekit::Range range, std::int64_t row, std::int64_t last, const sparsekit::Output& out,
                           const Activate& activate) {
  RowScales scales[kRowsTogether];
  for (int i = 0; i < kRowsTogether; ++i) {
    scales[i] = RowScales::of(weight, out, min(row + i * Vec::width, last), last);
  }
  for (std::int64_t t = range.first; t < range.last; ++t) {
    VecI32 rows[kRowsTogether];
    panel.template bring<whole>(t, rows);
    float* y = out.data + t * out.stride + row;
    for (int i = 0; i < kRowsTogether; ++i, y += Vec::width) {
      const Vec found = activate(scales[i].output(rows[i], tokens[t]));
      __builtin_prefetch(y + kPanel, 1);
      if (whole) {
        found.store(y);
      } else if (scales[i].count > 0) {
        store_partial(found, y, scales[i].count);
      }
    }
  }
}

template <class Format>
void store_slots_s8(const sparsekit::PackedWeight& weight, const void* activation, const void* results,
                    sparsekit::Range rows, const sparsekit::Output& out) {
  constexpr std::int64_t window = sparsekit::kSortWindow * Format::height;
  const auto* tokens = static_cast<const TokenScale*>(activation);
  const auto* sums = static_cast<const std::int32_t*>(results);
  const sparsekit::Range groups = row_groups_of<Format>(rows);
  with_activation(out.activation, [&](const auto& activate) {
    for (std::int64_t first = rows.first; first < rows.last; first += window) {
      const std::int64_t last = min(first + window, rows.last);
      for (std::int64_t t = 0; t < out.tokens; t += kStoredTogether) {
        const sparsekit::Range range{t, min(t + kStoredTogether, out.tokens)};
        for (std::int64_t row = first; row < last; row += kPanel) {
          const auto panel = panel_of<Format>(weight, sums, groups, row / Format::height);
          if (panel.groups >= sparsekit::kSortWindow && row + kPanel <= last) {
            store_panel_s8<true>(panel, weight, tokens, range, row, last, out, activate);
          } else {
            store_panel_s8<false>(panel, weight, tokens, range, row, last, out, activate);
          }
        }
      }
    }
  });
}

}  // namespace
