#include "cache_attention.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "../threading/parallel.h"
#include "../threading/scratch.h"
#include "attention_work.h"
#include "instruction_set.h"

namespace sparsekit {
namespace {

/// Keys of a part, which a few queries are computed with apart from other parts: few key heads then keep many threads
/// busy. The same for every number of threads, so that bits are; adding up the sums of parts is less than 1% of this.
constexpr std::int64_t kPartKeys = 512;

const AttentionKernels& kernels_of(DType dtype) {
  const KernelTable& table = current_kernels();
  if (dtype == DType::int8) return table.attention_s8;
  return dtype == DType::bfloat16 ? table.attention_bf16 : table.attention;
}

std::byte* row_at(const CachedRows& cache, std::int64_t head_dim, std::int64_t row) {
  return cache.rows + row * head_dim * dtype_entry(cache.dtype).bytes;
}

const float* scales_at(const CachedRows& cache, std::int64_t row) {
  return cache.scales == nullptr ? nullptr : cache.scales + row;
}

/// How a sequence is cut into tasks. Heads that share keys are one head of as many queries where each has one query.
struct Share {
  const AttentionKernels* kernels;
  std::int64_t heads;
  std::int64_t queries;     // of a head
  std::int64_t parts;       // of a head: of its keys where it has a few queries, else of its tiles of queries
  std::int64_t first_task;  // of the call's
  std::int64_t sums;        // floats of a part's sums: 0 without a few queries
  std::int64_t first_sum;   // of the call's

  bool few() const { return queries <= kernels->max_few; }
};

/// The first key that a query of a sequence sees.
std::int64_t first_key(const CacheAttentionCall& call, std::int64_t sequence) {
  const std::int64_t first_query = call.caches[sequence].tokens - call.sequences.length(sequence);
  return call.window == 0 ? 0 : std::max<std::int64_t>(0, first_query - call.window + 1);
}

/// Some queries of head `index` of a sequence, and all keys that they see.
AttentionHead head_of(const CacheAttentionCall& call, std::int64_t sequence, std::int64_t index, Range queries) {
  const CachedSequence& cache = call.caches[sequence];
  const bool one = call.sequences.length(sequence) == 1;
  const std::int64_t group = call.heads / call.key_heads;
  const std::int64_t first = first_key(call, sequence);
  const std::int64_t row = (one ? index : index / group) * cache.keys.capacity + first;
  AttentionHead head{};
  head.query_stride = head.output_stride = one ? call.head_dim : call.heads * call.head_dim;
  head.key_stride = head.value_stride = head.head_dim = head.value_dim = call.head_dim;
  const std::int64_t at = (call.sequences.start(sequence) * call.heads + (one ? index * group : index)) * call.head_dim;
  head.query = call.query + at + queries.first * head.query_stride;
  head.output = call.output + at + queries.first * head.output_stride;
  head.key = row_at(cache.keys, call.head_dim, row);
  head.value = row_at(cache.values, call.head_dim, row);
  head.key_scales = scales_at(cache.keys, row);
  head.value_scales = scales_at(cache.values, row);
  head.queries = queries.last - queries.first;
  head.keys = cache.tokens - first;
  if (!one) {
    head.causal = true;
    head.diagonal = head.keys - call.sequences.length(sequence) + queries.first;
    head.span = call.window;
  }
  head.soft_cap = call.soft_cap;
  head.scale = call.soft_cap == 0.0F ? call.scale : call.scale / call.soft_cap;
  return head;
}

int threads_for(const CacheAttentionCall& call) {
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < call.sequences.count; ++i) {
    const std::int64_t keys = call.caches[i].tokens;
    pairs += call.sequences.length(i) * (call.window == 0 ? keys : std::min(call.window, keys));
  }
  return pairs * call.heads * 2 * call.head_dim < kInlineAttention ? 1 : num_threads();
}

std::vector<Share> shares_of(const CacheAttentionCall& call, int threads) {
  const std::int64_t all_heads = call.sequences.count * call.heads;
  const std::int64_t ranges = threads == 1 ? 1 : (kAttentionTasks * threads + all_heads - 1) / all_heads;
  std::vector<Share> shares;
  std::int64_t task = 0;
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < call.sequences.count; ++i) {
    const std::int64_t length = call.sequences.length(i);
    Share share{&kernels_of(call.caches[i].keys.dtype), call.heads, length, 0, task, 0, sum};
    if (length == 1) {
      share.heads = call.key_heads;
      share.queries = call.heads / call.key_heads;
    }
    if (share.few()) {
      share.parts = (call.caches[i].tokens - first_key(call, i) + kPartKeys - 1) / kPartKeys;
      share.sums = share.kernels->sums(share.queries, call.head_dim, call.head_dim);
    } else {
      share.parts = std::min(ranges, (share.queries + share.kernels->tile - 1) / share.kernels->tile);
    }
    task += share.heads * share.parts;
    sum += share.heads * share.parts * share.sums;
    shares.push_back(share);
  }
  return shares;
}

/// Part `part` of the keys of a head with a few queries, whose sums go to `sums`, one part's behind the other's.
void attend_part(const Share& share, const AttentionHead& head, std::int64_t part, float* sums, float* space) {
  const Range keys{part * kPartKeys, std::min((part + 1) * kPartKeys, head.keys)};
  share.kernels->attend_keys(head, keys, sums + part * share.sums, space);
  if (share.parts == 1) share.kernels->finish_keys(head, 1, sums);
}

/// Task `task` of a sequence; `sums`: those of its few queries.
void run_task(const CacheAttentionCall& call, std::int64_t sequence, const Share& share, std::int64_t task,
              float* sums) {
  const auto floats = static_cast<std::size_t>(share.kernels->scratch(call.head_dim, call.head_dim));
  auto* space = reinterpret_cast<float*>(scratch(ScratchUse::activation, floats * sizeof(float)));
  const std::int64_t index = task / share.parts;
  const std::int64_t part = task % share.parts;
  if (share.few()) {
    const AttentionHead head = head_of(call, sequence, index, {0, share.queries});
    return attend_part(share, head, part, sums + index * share.parts * share.sums, space);
  }
  const std::int64_t tile = share.kernels->tile;
  const std::int64_t tiles = (share.queries + tile - 1) / tile;
  const Range queries{tiles * part / share.parts * tile,
                      std::min(tiles * (part + 1) / share.parts * tile, share.queries)};
  share.kernels->many(head_of(call, sequence, index, queries), space);
}

void finish_parts(const CacheAttentionCall& call, std::int64_t sequence, const Share& share, float* sums) {
  if (!share.few() || share.parts == 1) return;
  for (std::int64_t index = 0; index < share.heads; ++index) {
    const AttentionHead head = head_of(call, sequence, index, {0, share.queries});
    share.kernels->finish_keys(head, share.parts, sums + index * share.parts * share.sums);
  }
}

}  // namespace

DType cache_dtype_named(const std::string& name) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
    if (name == dtype_entry(dtype).name) return dtype;
  }
  throw std::invalid_argument("keys and values are stored in float32, bfloat16 or int8, got '" + name + "'");
}

void store_rows(const float* input, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
                const CachedRows& cache, std::int64_t first) {
  const StoreRowFn store = kernels_of(cache.dtype).store_row;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t row = head * cache.capacity + first + t;
      const float scale = store(input + (t * heads + head) * head_dim, head_dim, row_at(cache, head_dim, row));
      if (cache.scales != nullptr) cache.scales[row] = scale;
    }
  }
}

void cache_attention(const CacheAttentionCall& call) {
  if (call.sequences.count == 0 || call.heads == 0) return;
  const int threads = threads_for(call);
  const std::vector<Share> shares = shares_of(call, threads);
  const Share& last = shares.back();
  const auto floats = static_cast<std::size_t>(last.first_sum + last.heads * last.parts * last.sums);
  auto* const sums = reinterpret_cast<float*>(scratch(ScratchUse::sums, floats * sizeof(float)));
  const auto body = [&](std::int64_t task) {
    const auto behind = std::upper_bound(shares.begin(), shares.end(), task,
                                         [](std::int64_t i, const Share& share) { return i < share.first_task; });
    const Share& share = *(behind - 1);
    run_task(call, behind - 1 - shares.begin(), share, task - share.first_task, sums + share.first_sum);
  };
  const std::int64_t tasks = last.first_task + last.heads * last.parts;
  if (threads > 1) {
    parallel(tasks, body);
  } else {
    for (std::int64_t i = 0; i < tasks; ++i) body(i);
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    finish_parts(call, static_cast<std::int64_t>(i), shares[i], sums + shares[i].first_sum);
  }
}

}  // namespace sparsekit
