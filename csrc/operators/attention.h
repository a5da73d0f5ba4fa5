// Dense attention of a batch of sequences with masks of every kind: checks the call, splits the work over threads.
#pragma once

#include <array>
#include <cstdint>

namespace sparsekit {

/// [batch, heads, tokens, features]
using FourSizes = std::array<std::int64_t, 4>;

/// A tensor, strides in its entries.
template <class Entry>
struct Heads {
  Entry* data;
  FourSizes shape;
  FourSizes strides;
};

struct AttentionCall {
  Heads<const float> query;  // [batch, heads, queries, head_dim]
  Heads<const float> key;    // [batch, key heads, keys, head_dim]; each serves heads / key heads heads of queries
  Heads<const float> value;  // [batch, key heads, keys, value_dim]
  Heads<float> output;       // [batch, heads, queries, value_dim]
  Heads<const void> mask;    // [batch, heads, queries, keys]: floats that are added, or bytes; data may be null
  bool mask_of_bytes;        // 0 hides the key from the query
  bool causal;               // query `i` sees the keys up to `i + keys - queries` only
  float scale;
};

/// output = softmax(scale * query @ key^T + mask) @ value, and 0 for a query that sees no key. Of one query, heads that
/// share keys read them once for all of them.
/// Throws std::invalid_argument for shapes that do not fit each other, and where the last stride is not 1.
void attention(const AttentionCall& call);

}  // namespace sparsekit
