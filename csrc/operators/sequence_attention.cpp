#include "sequence_attention.h"

#include <algorithm>
#include <cstddef>

#include "../threading/parallel.h"
#include "../threading/scratch.h"
#include "attention_work.h"
#include "instruction_set.h"

namespace sparsekit {
namespace {

int threads_for(const SequenceAttentionCall& call) {
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < call.sequences.count; ++i) {
    const std::int64_t tokens = call.sequences.length(i);
    pairs += call.queries(i) * (call.window == 0 ? tokens : std::min(tokens, 2 * call.window + 1));
  }
  const int products = 1 + (call.positions.keys == nullptr ? 0 : 1) + (call.positions.queries == nullptr ? 0 : 1);
  const std::int64_t work = pairs * call.heads * (products * call.head_dim + call.value_dim);
  return work < kInlineAttention ? 1 : num_threads();
}

bool has_positions(const SequenceAttentionCall& call) {
  return call.positions.keys != nullptr || call.positions.queries != nullptr;
}

/// The tables of a head, for queries from `first_query` on.
void add_positions(const SequenceAttentionCall& call, std::int64_t head_index, std::int64_t first_query,
                   AttentionHead& head) {
  const PositionTables& tables = call.positions;
  const auto of_head = [&](const float* table) {
    return table == nullptr ? nullptr : table + head_index * call.head_dim;
  };
  head.position_key = of_head(tables.keys);
  head.position_query = of_head(tables.queries);
  head.position_stride = call.heads * call.head_dim;
  head.distance_rows = tables.distance_rows + tables.tokens - 1 + first_query;
}

/// Queries `part` of a head of a sequence.
AttentionHead head_of(const SequenceAttentionCall& call, std::int64_t sequence, std::int64_t head_index, Range part) {
  const std::int64_t first = call.sequences.start(sequence);
  AttentionHead head{};
  head.query_stride = head.key_stride = call.heads * call.head_dim;
  head.value_stride = head.output_stride = call.heads * call.value_dim;
  head.query = call.query + (first + part.first) * head.query_stride + head_index * call.head_dim;
  head.key = call.key + first * head.key_stride + head_index * call.head_dim;
  head.value = call.value + first * head.value_stride + head_index * call.value_dim;
  head.output = call.output + (first + part.first) * head.output_stride + head_index * call.value_dim;
  head.queries = part.last - part.first;
  head.keys = call.sequences.length(sequence);
  head.head_dim = call.head_dim;
  head.value_dim = call.value_dim;
  head.scale = call.scale;
  if (call.window > 0) {
    head.causal = true;
    head.diagonal = part.first + call.window;
    head.span = 2 * call.window + 1;
  }
  const DistanceBiases& biases = call.biases;
  if (biases.rows != nullptr) {
    head.bias = biases.rows + head_index * (2 * biases.tokens - 1) + biases.tokens - 1 + part.first;
  }
  if (has_positions(call)) add_positions(call, head_index, part.first, head);
  return head;
}

/// Range `index` of `count` that the queries of a sequence are cut into, at whole tiles.
Range queries_in(std::int64_t queries, std::int64_t tile, std::int64_t index, std::int64_t count) {
  const std::int64_t tiles = (queries + tile - 1) / tile;
  return {std::min(tiles * index / count * tile, queries), std::min(tiles * (index + 1) / count * tile, queries)};
}

}  // namespace

void sequence_attention(const SequenceAttentionCall& call) {
  const std::int64_t heads = call.sequences.count * call.heads;
  if (heads == 0 || call.sequences.tokens() == 0) return;
  const AttentionKernels& kernels = current_kernels().attention;
  const int threads = threads_for(call);
  const std::int64_t ranges = threads == 1 ? 1 : (kAttentionTasks * threads + heads - 1) / heads;
  const auto floats = static_cast<std::size_t>(kernels.scratch(call.head_dim, call.value_dim));
  const auto body = [&](std::int64_t i) {
    const std::int64_t head = i / ranges;
    const std::int64_t queries = call.queries(head / call.heads);
    const bool few = queries <= kernels.max_few && !has_positions(call);
    const Range part = queries_in(queries, few ? std::max<std::int64_t>(1, queries) : kernels.tile, i % ranges, ranges);
    if (part.first == part.last) return;
    auto* space = reinterpret_cast<float*>(scratch(ScratchUse::activation, floats * sizeof(float)));
    (few ? kernels.few : kernels.many)(head_of(call, head / call.heads, head % call.heads, part), space);
  };
  if (threads > 1) return parallel(heads * ranges, body);
  for (std::int64_t i = 0; i < heads * ranges; ++i) body(i);
}

}  // namespace sparsekit
