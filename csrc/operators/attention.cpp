#include "attention.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "../threading/parallel.h"
#include "../threading/scratch.h"
#include "attention_work.h"
#include "instruction_set.h"

namespace sparsekit {
namespace {

std::string text(const FourSizes& sizes) {
  std::string joined;
  for (const std::int64_t size : sizes) joined += (joined.empty() ? "[" : ", ") + std::to_string(size);
  return joined + "]";
}

template <class Entry>
void check(const std::string& name, const Heads<Entry>& tensor, const FourSizes& expected) {
  if (*std::min_element(expected.begin(), expected.end()) < 0) {
    throw std::invalid_argument("sizes must not be negative, got " + text(expected) + " for " + name);
  }
  if (tensor.shape != expected) {
    throw std::invalid_argument(name + " must have shape " + text(expected) + " to go with the others, got " +
                                text(tensor.shape));
  }
  if (tensor.shape[3] > 1 && tensor.strides[3] != 1) {
    throw std::invalid_argument("the last dimension of " + name + " must be contiguous, got strides " +
                                text(tensor.strides) + "; make a copy");
  }
}

void check(const AttentionCall& call) {
  const auto [batch, heads, queries, head_dim] = call.query.shape;
  const std::int64_t key_heads = call.key.shape[1];
  const std::int64_t keys = call.key.shape[2];
  const std::int64_t value_dim = call.value.shape[3];
  if (heads != 0 && (key_heads < 1 || heads % key_heads != 0)) {
    throw std::invalid_argument("the heads of the query must be a multiple of those of the key, got " +
                                std::to_string(heads) + " and " + std::to_string(key_heads));
  }
  check("the query", call.query, call.query.shape);
  check("the key", call.key, {batch, key_heads, keys, head_dim});
  check("the value", call.value, {batch, key_heads, keys, value_dim});
  check("the output", call.output, {batch, heads, queries, value_dim});
  if (call.mask.data != nullptr) check("the mask", call.mask, {batch, heads, queries, keys});
}

/// Makes one query of the heads that share keys as many queries of one head.
template <class Entry>
void gather_group(Heads<Entry>& tensor, std::int64_t group) {
  tensor.shape[1] /= group;
  tensor.shape[2] = group;
  tensor.strides[2] = tensor.strides[1];
  tensor.strides[1] *= group;
}

/// A single query sees all keys. Where several heads share theirs, they are read once for all of them.
AttentionCall without_groups(AttentionCall call) {
  const std::int64_t group = call.query.shape[1] / call.key.shape[1];
  if (call.query.shape[2] != 1) return call;
  call.causal = false;
  if (group == 1) return call;
  gather_group(call.query, group);
  gather_group(call.output, group);
  if (call.mask.data != nullptr) gather_group(call.mask, group);
  return call;
}

template <class Entry>
std::int64_t offset(const Heads<Entry>& tensor, std::int64_t sequence, std::int64_t head, std::int64_t token) {
  return sequence * tensor.strides[0] + head * tensor.strides[1] + token * tensor.strides[2];
}

/// Sequences in which all queries have the same row of bytes, as padding gives it: written out for each query, but one
/// row says it all.
std::vector<bool> sequences_with_one_row(const AttentionCall& call) {
  const std::int64_t batch = call.query.shape[0];
  const std::int64_t heads = call.mask.shape[1];
  const std::int64_t queries = call.mask.shape[2];
  const std::int64_t keys = call.mask.shape[3];
  std::vector<bool> found(static_cast<std::size_t>(batch), false);
  const bool shared = heads == 1 || call.mask.strides[1] == 0;
  if (call.mask.data == nullptr || !call.mask_of_bytes || !shared || keys == 0) return found;
  for (std::int64_t s = 0; s < batch; ++s) {
    const auto* first = static_cast<const std::uint8_t*>(call.mask.data) + offset(call.mask, s, 0, 0);
    std::int64_t same = 1;
    while (same < queries && std::equal(first, first + keys, first + same * call.mask.strides[2])) ++same;
    found[static_cast<std::size_t>(s)] = same == queries;
  }
  return found;
}

/// Leaves out the keys at both ends that a row of bytes hides from all queries: padding then costs nothing.
void leave_padding_out(AttentionHead& head) {
  const auto* mask = static_cast<const std::uint8_t*>(head.mask);
  std::int64_t first = 0;
  while (first < head.keys && mask[first] == 0) ++first;
  while (head.keys > first && mask[head.keys - 1] == 0) --head.keys;
  head.keys -= first;
  head.key = static_cast<const float*>(head.key) + first * head.key_stride;
  head.value = static_cast<const float*>(head.value) + first * head.value_stride;
  head.mask = mask + first;
  head.diagonal -= first;
}

AttentionHead head_of(const AttentionCall& call, std::int64_t index, Range queries, bool one_row) {
  const std::int64_t heads = call.query.shape[1];
  const std::int64_t sequence = index / heads;
  const std::int64_t of_query = index % heads;
  const std::int64_t of_key = of_query / (heads / call.key.shape[1]);
  AttentionHead head{};
  head.query = call.query.data + offset(call.query, sequence, of_query, queries.first);
  head.key = call.key.data + offset(call.key, sequence, of_key, 0);
  head.value = call.value.data + offset(call.value, sequence, of_key, 0);
  head.output = call.output.data + offset(call.output, sequence, of_query, queries.first);
  head.query_stride = call.query.strides[2];
  head.key_stride = call.key.strides[2];
  head.value_stride = call.value.strides[2];
  head.output_stride = call.output.strides[2];
  head.queries = queries.last - queries.first;
  head.keys = call.key.shape[2];
  head.head_dim = call.query.shape[3];
  head.value_dim = call.value.shape[3];
  head.causal = call.causal;
  head.diagonal = head.keys - call.query.shape[2] + queries.first;
  head.scale = call.scale;
  if (call.mask.data == nullptr) return head;
  head.mask_kind = call.mask_of_bytes ? MaskKind::visible : MaskKind::added;
  head.mask_stride = one_row ? 0 : call.mask.strides[2];
  const std::int64_t entry = call.mask_of_bytes ? 1 : sizeof(float);
  head.mask =
      static_cast<const std::byte*>(call.mask.data) + offset(call.mask, sequence, of_query, queries.first) * entry;
  if (call.mask_of_bytes && head.mask_stride == 0) leave_padding_out(head);
  return head;
}

int threads_for(const AttentionCall& call) {
  const auto [batch, heads, queries, head_dim] = call.query.shape;
  const std::int64_t features = head_dim + call.value.shape[3];
  return batch * heads * queries * call.key.shape[2] * features < kInlineAttention ? 1 : num_threads();
}

/// Ranges that the queries of every head are cut into.
std::int64_t ranges_for(const AttentionCall& call, std::int64_t tiles, int threads) {
  const std::int64_t heads = call.query.shape[0] * call.query.shape[1];
  return threads == 1 ? 1 : std::min((kAttentionTasks * threads + heads - 1) / heads, tiles);
}

void run(const AttentionCall& call, const AttentionKernels& kernels) {
  const auto [batch, heads, queries, head_dim] = call.query.shape;
  const bool few = queries <= kernels.max_few;
  const std::int64_t tile = few ? queries : kernels.tile;
  const std::int64_t tiles = (queries + tile - 1) / tile;
  const int threads = threads_for(call);
  const std::int64_t ranges = ranges_for(call, tiles, threads);
  const auto floats = static_cast<std::size_t>(kernels.scratch(head_dim, call.value.shape[3]));
  const std::vector<bool> one_row = sequences_with_one_row(call);
  const auto body = [&, heads = heads, queries = queries](std::int64_t i) {
    const std::int64_t head = i / ranges;
    const std::int64_t range = i % ranges;
    const Range part{tiles * range / ranges * tile, std::min(tiles * (range + 1) / ranges * tile, queries)};
    auto* space = reinterpret_cast<float*>(scratch(ScratchUse::activation, floats * sizeof(float)));
    (few ? kernels.few : kernels.many)(head_of(call, head, part, one_row[static_cast<std::size_t>(head / heads)]),
                                       space);
  };
  const std::int64_t tasks = batch * heads * ranges;
  if (threads > 1) return parallel(tasks, body);
  for (std::int64_t i = 0; i < tasks; ++i) body(i);
}

}  // namespace

void attention(const AttentionCall& call) {
  check(call);
  const FourSizes& sizes = call.output.shape;
  if (sizes[0] * sizes[1] * sizes[2] * sizes[3] == 0) return;
  run(without_groups(call), current_kernels().attention);
}

}  // namespace sparsekit
