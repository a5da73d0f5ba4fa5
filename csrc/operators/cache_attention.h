// Attention of new tokens over KV caches, and quantization of cached keys and values: float32, bfloat16, or int8 with a
// scale for each head and token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../formats/dtypes.h"
#include "sequences.h"

namespace sparsekit {

/// Keys or values of one sequence in a layer, as its cache has them.
struct CachedRows {
  DType dtype;
  std::byte* rows;        // [heads, capacity, head_dim]
  float* scales;          // of int8, [heads, capacity]: a row is its numbers times its scale; else null
  std::int64_t capacity;  // tokens that there is room for
};

/// A type that keys and values are stored in. Throws std::invalid_argument for any other name.
DType cache_dtype_named(const std::string& name);

/// Stores heads of tokens, input[tokens, heads * head_dim], from token `first` of a cache on. A row depends on its own
/// numbers alone, and is the same with every instruction set; one that holds infinity or NaN is all NaN in int8.
void store_rows(const float* input, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
                const CachedRows& cache, std::int64_t first);

struct CachedSequence {
  CachedRows keys;
  CachedRows values;    // of the same type
  std::int64_t tokens;  // those of the queries are the last of them
};

/// Heads of a token lie next to each other. `heads / key_heads` heads of queries share keys and values.
struct CacheAttentionCall {
  const float* query;  // [tokens, heads * head_dim]
  float* output;       // as `query`
  std::int64_t heads;
  std::int64_t key_heads;
  std::int64_t head_dim;
  Sequences sequences;           // the queries of each
  const CachedSequence* caches;  // [sequences]
  float scale;
  std::int64_t window = 0;  // last keys that a token sees, its own among them; 0 for all
  float soft_cap = 0.0F;    // scores become soft_cap * tanh(score / soft_cap); 0: they stay (Gemma 2)
};

/// output = softmax(scale * query @ key^T) @ value, sequence by sequence and head by head; a token sees itself and
/// those before it. Of one query, heads that share keys read them once for all of them. Sizes are checked by the
/// caller. The same bits for every number of threads.
void cache_attention(const CacheAttentionCall& call);

}  // namespace sparsekit
