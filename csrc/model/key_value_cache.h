// KV cache: keys and values of one sequence, for all layers of a decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "../operators/cache_attention.h"
#include "workspace.h"

namespace sparsekit {

/// Shape of a layer's cache per token: a key and a value of `head_dim` numbers for each of its heads.
struct CacheShape {
  std::vector<std::int64_t> heads;  // of keys, in each layer
  std::int64_t head_dim = 0;

  bool operator==(const CacheShape&) const = default;

  /// Bytes of a token in all layers, of int8 with the scales.
  std::int64_t bytes(DType dtype) const;
};

/// For each layer keys [heads, capacity, head_dim], then values alike; before all of them, of int8, their scales
/// [heads, capacity]. The system commits pages as tokens are written. So paging is left to the system, and a sequence
/// takes at least a page for the keys and one for the values of each head of each layer, twice as many in int8.
class KeyValueCache {
 public:
  /// Room for `capacity` tokens. Throws std::invalid_argument for none, for more than there are addresses for, and for
  /// a type that no cache has.
  KeyValueCache(const CacheShape& shape, std::int64_t capacity, DType dtype = DType::float32);

  const CacheShape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

  /// Number of tokens in the cache.
  std::int64_t tokens() const { return tokens_; }
  std::int64_t capacity() const { return capacity_; }

  /// Of a layer.
  CachedRows keys(std::size_t layer) { return rows_from(starts_[layer]); }
  CachedRows values(std::size_t layer) { return rows_from((starts_[layer] + starts_[layer + 1]) / 2); }

  /// Records that `count` more tokens have been written to all layers.
  void advance(std::int64_t count) { tokens_ += count; }

  /// Keeps only the first `count` tokens. Throws std::invalid_argument if there are fewer.
  void truncate(std::int64_t count);

  /// Replaces its tokens by the first `count` tokens of another cache. Throws std::invalid_argument if that has fewer
  /// tokens, another shape or another type, or this cache is too small.
  void copy(KeyValueCache& other, std::int64_t count);

 private:
  /// From head `head` of all on.
  CachedRows rows_from(std::int64_t head);

  CacheShape shape_;
  std::int64_t capacity_;
  DType dtype_;
  std::int64_t tokens_ = 0;
  std::vector<std::int64_t> starts_;  // heads of keys and of values before each layer, and of all
  Workspace memory_;
};

}  // namespace sparsekit
