#include "product.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "scratch.h"

namespace sparsekit {
namespace {

/// Below this much work, about 15 microseconds on one core, waking other threads costs more than it gives.
constexpr std::int64_t kInlineWork = 600'000;
/// Work of an entry for a call with no tokens; every token adds 1.
constexpr std::int64_t kWorkOfEntry = 4;
/// Floats of the sums that a task keeps in cache (128 KB).
constexpr std::int64_t kSumsFloats = 32768;
/// With this many tiles for each thread, uneven shares no longer matter.
constexpr std::int64_t kTilesPerThread = 4;

/// Entries that a task multiplies for each input feature, from which packing is a small part of its work.
constexpr std::int64_t kEntriesPerPacked = 8;

struct Tile {
  std::int64_t first_token;
  const Kernel* kernel;
};

const Kernel& pick_kernel(const Product& product, const KernelTable& table, std::int64_t tokens) {
  const Kernel* best = nullptr;
  for (int i = 0; i < table.size; ++i) {
    const Kernel& kernel = table.kernels[i];
    const bool fits = kernel.layout == product.layout.layout && (product.forward() || kernel.multiply_transposed);
    if (fits && (best == nullptr || kernel.min_batch <= tokens)) best = &kernel;
  }
  return *best;
}

std::vector<Tile> plan_tiles(const Product& product, const KernelTable& table) {
  std::vector<Tile> tiles;
  for (std::int64_t first = 0; first < product.input.tokens; first += tiles.back().kernel->tile) {
    tiles.push_back({first, &pick_kernel(product, table, product.input.tokens - first)});
  }
  return tiles;
}

int threads_for(const Product& product) {
  const std::int64_t work = product.entries * (product.input.tokens + kWorkOfEntry);
  return work < kInlineWork ? 1 : num_threads();
}

/// Output features that a task may start at: multiples of this.
std::int64_t unit_of(const Product& product) { return product.forward() ? kWindow : kBlockWidth; }

/// Whether whole tiles give every thread about the same work.
bool shares_evenly(const std::vector<Tile>& tiles, int threads) {
  const auto count = static_cast<std::int64_t>(tiles.size());
  if (count >= kTilesPerThread * threads) return true;
  return count % threads == 0 && tiles.front().kernel == tiles.back().kernel;
}

/// Ranges of output features that every tile is cut into.
std::int64_t split_count(const Product& product, const std::vector<Tile>& tiles, int threads) {
  if (threads == 1 || shares_evenly(tiles, threads)) return 1;
  const std::int64_t most = (product.outputs() + unit_of(product) - 1) / unit_of(product);
  return std::max<std::int64_t>(1, std::min<std::int64_t>(threads, most));
}

/// Whether every task packs its tile itself, although others pack the same: where each has enough to multiply, that
/// costs less than to wait for each other and to read what another core wrote.
bool packs_apart(const Product& product, std::int64_t splits) {
  return splits == 1 || product.entries >= splits * kEntriesPerPacked * product.inputs();
}

/// First row of share `index` of `count` shares with equal work: the nonzeros of random rows differ by a quarter.
std::int64_t balanced_row(const Product& product, std::int64_t index, std::int64_t count) {
  const std::int64_t wanted = product.entries * index / count;
  std::int64_t low = 0;
  std::int64_t high = (product.weight.out_features + kWindow - 1) / kWindow;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (product.layout.work_before(product.weight, std::min(middle * kWindow, product.weight.tiles() * kLanes)) <
        wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low * kWindow;
}

/// First output feature of share `index` of `count`.
std::int64_t share_start(const Product& product, std::int64_t index, std::int64_t count) {
  if (index == 0) return 0;
  const std::int64_t start =
      product.forward() ? balanced_row(product, index, count) : product.weight.blocks * index / count * kBlockWidth;
  return index == count ? product.outputs() : std::min(start, product.outputs());
}

/// Floats of a packed token: whole blocks where the weight has them.
std::int64_t packed_width(const Product& product) {
  return product.forward() ? product.weight.blocks * kBlockWidth : product.weight.out_features;
}

Input tile_input(const Product& product, const Tile& tile) {
  const Input& all = product.input;
  return {all.data + tile.first_token * all.stride, all.stride,
          std::min(tile.kernel->tile, all.tokens - tile.first_token)};
}

Output tile_output(const Product& product, const Tile& tile) {
  Output out = product.output;
  out.data += tile.first_token * out.stride;
  out.tokens = std::min(tile.kernel->tile, out.tokens - tile.first_token);
  return out;
}

/// Multiplies and stores one tile for the output features of `range`, a cache-sized piece at a time.
void multiply_tile(const Product& product, const Tile& tile, const float* activation, RowRange range) {
  const Kernel& kernel = *tile.kernel;
  const std::int64_t unit = unit_of(product);
  const std::int64_t step = std::max(unit, kSumsFloats / kernel.tile / unit * unit);
  const std::int64_t most = padded_lanes(std::min(step, product.outputs()));
  float* sums = scratch(ScratchUse::sums, static_cast<std::size_t>(most * kernel.tile));
  const MultiplyFn multiply = product.forward() ? kernel.multiply : kernel.multiply_transposed;
  const Output out = tile_output(product, tile);
  for (std::int64_t first = range.first; first < range.last; first += step) {
    const RowRange piece{first, std::min(first + step, range.last)};
    multiply(product.weight, activation, sums, piece);
    kernel.store(sums, piece, out);
  }
}

/// The tile's activation as its kernel wants it: transposed into `space`, or as it lies for a tile of one token.
const float* pack_tile(const Product& product, const Tile& tile, RowRange features, float* space) {
  const Input input = tile_input(product, tile);
  if (tile.kernel->pack == nullptr) return input.data;
  tile.kernel->pack(input, features, packed_width(product), space);
  return space;
}

/// Every task packs the tile it multiplies, for all output features or one range of them. Consecutive tasks have the
/// same range, so that a thread keeps its part of the weight in cache.
void run_apart(const Product& product, const std::vector<Tile>& tiles, std::int64_t splits, int threads) {
  const auto count = static_cast<std::int64_t>(tiles.size());
  const auto body = [&](std::int64_t i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i % count)];
    float* space = scratch(ScratchUse::activation, static_cast<std::size_t>(packed_width(product) * tile.kernel->tile));
    const float* activation = pack_tile(product, tile, {0, product.inputs()}, space);
    multiply_tile(product, tile, activation,
                  {share_start(product, i / count, splits), share_start(product, i / count + 1, splits)});
  };
  if (threads > 1) return parallel(count * splits, body);
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

/// First input feature of packing share `index` of `count`: at whole blocks, so that kernels may write whole vectors.
std::int64_t pack_start(std::int64_t inputs, std::int64_t index, std::int64_t count) {
  return index == count ? inputs : inputs * index / count / kBlockWidth * kBlockWidth;
}

/// First all tiles are packed, by ranges of input features; then tasks share them, in the order of `run_apart`.
void run_together(const Product& product, const std::vector<Tile>& tiles, std::int64_t splits) {
  const auto count = static_cast<std::int64_t>(tiles.size());
  const std::int64_t inputs = product.inputs();
  const std::int64_t tokens = tiles.back().first_token + tiles.back().kernel->tile;
  const std::int64_t width = packed_width(product);
  float* space = scratch(ScratchUse::activation, static_cast<std::size_t>(width * tokens));
  const auto tile_space = [&](const Tile& tile) { return space + tile.first_token * width; };
  parallel(count * splits, [&](std::int64_t i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i % count)];
    const std::int64_t part = i / count;
    pack_tile(product, tile, {pack_start(inputs, part, splits), pack_start(inputs, part + 1, splits)},
              tile_space(tile));
  });
  parallel(count * splits, [&](std::int64_t i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i % count)];
    const std::int64_t part = i / count;
    const float* activation = tile.kernel->pack == nullptr ? tile_input(product, tile).data : tile_space(tile);
    multiply_tile(product, tile, activation,
                  {share_start(product, part, splits), share_start(product, part + 1, splits)});
  });
}

}  // namespace

void run(const Product& product, const KernelTable& table) {
  if (product.input.tokens == 0 || product.outputs() == 0) return;
  const std::vector<Tile> tiles = plan_tiles(product, table);
  const int threads = threads_for(product);
  const std::int64_t splits = split_count(product, tiles, threads);
  if (packs_apart(product, splits)) return run_apart(product, tiles, splits, threads);
  run_together(product, tiles, splits);
}

}  // namespace sparsekit
