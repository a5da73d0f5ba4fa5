#include "sparse_product.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "../formats/sell.h"
#include "../threading/parallel.h"
#include "../threading/scratch.h"

namespace sparsekit {
namespace {

/// Below this much work, about 15 microseconds on one core, waking other threads costs more than it gives.
constexpr std::int64_t kInlineWork = 600'000;
/// Fixed work per entry of a call; every token adds 1.
constexpr std::int64_t kWorkOfEntry = 4;
/// Accumulators of four bytes that a task keeps in cache (128 KB).
constexpr std::int64_t kSums = 32768;
/// With this many tiles per thread, uneven shares no longer matter.
constexpr std::int64_t kTilesPerThread = 4;

/// Entries that a task multiplies for each input feature, from which packing is a small part of its work.
constexpr std::int64_t kEntriesPerPacked = 8;

/// Whether every tile could be packed.
using Usable = std::atomic<bool>;

struct Tile {
  std::int64_t first_token;
  const Kernel* kernel;
};

const Kernel& pick_kernel(const Product& product, const KernelTable& table, std::int64_t tokens) {
  const Kernel* best = nullptr;
  for (int i = 0; i < table.size; ++i) {
    const Kernel& kernel = table.kernels[i];
    const bool fits = kernel.layout == product.layout && (product.forward() || kernel.multiply_transposed);
    if (fits && (best == nullptr || kernel.min_tokens.of(table.vendor) <= tokens)) best = &kernel;
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

std::int64_t entries_of(const Products& products) {
  std::int64_t entries = 0;
  for (const Product& product : products) entries += product.entries;
  return entries;
}

std::int64_t widest_of(const Products& products) {
  std::int64_t widest = 0;
  for (const Product& product : products) widest = std::max(widest, product.outputs());
  return widest;
}

int threads_for(const Products& products) {
  const Product& first = products.front();
  const std::int64_t entries = entries_of(products) * layout_entry(first.layout).sixths / 6;
  const std::int64_t work = entries * (first.input.tokens + kWorkOfEntry);
  return work < kInlineWork ? 1 : num_threads();
}

/// Output features that a task may start at: multiples of this.
std::int64_t unit_of(const Product& product) {
  return product.forward() ? kSortWindow * product.weight.height : product.weight.width;
}

/// Whether whole tiles give every thread about the same work.
bool shares_evenly(const std::vector<Tile>& tiles, int threads) {
  const auto count = static_cast<std::int64_t>(tiles.size());
  if (count >= kTilesPerThread * threads) return true;
  return count % threads == 0 && tiles.front().kernel == tiles.back().kernel;
}

/// Ranges of output features that every tile is cut into.
std::int64_t split_count(const Products& products, const std::vector<Tile>& tiles, int threads) {
  if (threads == 1 || shares_evenly(tiles, threads)) return 1;
  const std::int64_t unit = unit_of(products.front());
  const std::int64_t most = (widest_of(products) + unit - 1) / unit;
  return std::max<std::int64_t>(1, std::min<std::int64_t>(threads, most));
}

/// Whether every task packs its tile itself, although others pack the same: where each has enough to multiply, that
/// costs less than to wait for each other and to read what another core wrote.
bool packs_apart(const Products& products, const std::vector<Tile>& tiles, std::int64_t splits) {
  const std::int64_t enough = splits * kEntriesPerPacked * products.front().inputs();
  return splits == 1 || tiles.front().kernel->packs_whole || entries_of(products) >= enough;
}

/// First row of share `index` of `count` shares with equal work: the nonzeros of random rows differ by a quarter.
std::int64_t balanced_row(const Product& product, std::int64_t index, std::int64_t count) {
  const std::int64_t wanted = product.entries * index / count;
  const std::int64_t groups = product.weight.slices * kSlice;
  std::int64_t low = 0;
  std::int64_t high = (groups + kSortWindow - 1) / kSortWindow;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (work_before(product.weight, std::min(middle * kSortWindow, groups)) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low * unit_of(product);
}

/// First output feature of share `index` of `count`.
std::int64_t share_start(const Product& product, std::int64_t index, std::int64_t count) {
  if (index == 0) return 0;
  const std::int64_t start = product.forward() ? balanced_row(product, index, count)
                                               : product.weight.column_blocks * index / count * product.weight.width;
  return index == count ? product.outputs() : std::min(start, product.outputs());
}

/// Input features of a packed token: whole column blocks where the weight has them.
std::int64_t packed_features(const Product& product) {
  return product.forward() ? product.weight.padded_features() : product.weight.out_features;
}

std::size_t packed_bytes(const Product& product, const Kernel& kernel) {
  return static_cast<std::size_t>(kernel.head_bytes + packed_features(product) * kernel.input_bytes);
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
void multiply_tile(const Product& product, const Tile& tile, const void* activation, Range range) {
  const Kernel& kernel = *tile.kernel;
  const std::int64_t unit = unit_of(product);
  const std::int64_t step = std::max(unit, kSums / kernel.tile / unit * unit);
  const std::int64_t height = product.forward() ? product.weight.height : 1;
  const std::int64_t most = padded_row_groups(std::min(step, product.outputs()), height) * height;
  void* sums = scratch(ScratchUse::sums, static_cast<std::size_t>(most * kernel.tile) * sizeof(float));
  const MultiplyFn multiply = product.forward() ? kernel.multiply : kernel.multiply_transposed;
  const Output out = tile_output(product, tile);
  for (std::int64_t first = range.first; first < range.last; first += step) {
    const Range piece{first, std::min(first + step, range.last)};
    multiply(product.weight, activation, sums, piece);
    kernel.store(product.weight, activation, sums, piece, out);
  }
}

/// The same for share `part` of `splits` of every product.
void multiply_share(const Products& products, const Tile& tile, const void* activation, std::int64_t part,
                    std::int64_t splits) {
  for (const Product& product : products) {
    multiply_tile(product, tile, activation,
                  {share_start(product, part, splits), share_start(product, part + 1, splits)});
  }
}

/// The tile's activation as its kernel wants it: packed into `space`, or as it lies for a tile of one token.
const void* pack_tile(const Product& product, const Tile& tile, Range features, void* space, Usable& usable) {
  const Input input = tile_input(product, tile);
  if (tile.kernel->pack == nullptr) return input.data;
  if (!tile.kernel->pack(input, features, packed_features(product), space)) usable.store(false);
  return space;
}

/// Every task packs the tile it multiplies, once for all products, and for all output features or one range of them.
/// Consecutive tasks have the same range, so that a thread keeps its part of the weight in cache.
void run_apart(const Products& products, const std::vector<Tile>& tiles, std::int64_t splits, int threads,
               Usable& usable) {
  const Product& first = products.front();
  const auto count = static_cast<std::int64_t>(tiles.size());
  const auto body = [&](std::int64_t i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i % count)];
    void* space = scratch(ScratchUse::activation, packed_bytes(first, *tile.kernel));
    const void* activation = pack_tile(first, tile, {0, first.inputs()}, space, usable);
    multiply_share(products, tile, activation, i / count, splits);
  };
  if (threads > 1) return parallel(count * splits, body);
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

/// First input feature of packing share `index` of `count`: at whole column blocks, so that kernels may write whole
/// vectors.
std::int64_t pack_start(std::int64_t inputs, std::int64_t index, std::int64_t count) {
  return index == count ? inputs : inputs * index / count / kColumnBlock * kColumnBlock;
}

/// First all tiles are packed, by ranges of input features; then tasks share them, in the order of `run_apart`.
void run_together(const Products& products, const std::vector<Tile>& tiles, std::int64_t splits, Usable& usable) {
  const Product& product = products.front();
  const auto count = static_cast<std::int64_t>(tiles.size());
  const std::int64_t inputs = product.inputs();
  std::vector<std::size_t> starts(1, 0);
  for (const Tile& tile : tiles) starts.push_back(starts.back() + packed_bytes(product, *tile.kernel));
  std::byte* space = scratch(ScratchUse::activation, starts.back());
  std::vector<const void*> packed(tiles.size());
  parallel(count * splits, [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i % count);
    const std::int64_t part = i / count;
    const void* here =
        pack_tile(product, tiles[at], {pack_start(inputs, part, splits), pack_start(inputs, part + 1, splits)},
                  space + starts[at], usable);
    if (part == 0) packed[at] = here;
  });
  parallel(count * splits, [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i % count);
    multiply_share(products, tiles[at], packed[at], i / count, splits);
  });
}

}  // namespace

void run(const Products& products, const KernelTable& table) {
  const Product& first = products.front();
  if (first.input.tokens == 0 || widest_of(products) == 0) return;
  const std::vector<Tile> tiles = plan_tiles(first, table);
  const int threads = threads_for(products);
  const std::int64_t splits = split_count(products, tiles, threads);
  Usable usable{true};
  if (packs_apart(products, tiles, splits)) {
    run_apart(products, tiles, splits, threads, usable);
  } else {
    run_together(products, tiles, splits, usable);
  }
  if (!usable.load()) {
    throw std::invalid_argument(
        "the input holds an infinity, a NaN or numbers too large, which cannot be quantized to int8; use a layer with "
        "float values for it");
  }
}

}  // namespace sparsekit
