// Keys and values of one sequence, for all layers of a decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "../operators/cache_attention.h"
#include "workspace.h"

namespace sparsekit {

/// What a layer keeps of a token: a key and a value of `head_dim` numbers for each of its heads.
struct CacheShape {
  std::vector<std::int64_t> heads;  // of keys, in each layer
  std::int64_t head_dim = 0;

  bool operator==(const CacheShape&) const = default;

  /// Bytes of a token in all layers, of int8 with the scales.
  std::int64_t bytes(DType dtype) const;
};

/// For each layer keys [heads, capacity, head_dim], then values alike; before all of them, of int8, their scales
/// [heads, capacity]. Memory is taken from the system as tokens come: a page that holds none takes no room. So paging
/// is left to the system, and a sequence takes at least a page for the keys and one for the values of each head of each
/// layer, in int8 twice as many.
class KeyValueCache {
 public:
  /// Room for `capacity` tokens. Throws std::invalid_argument for none, for more than there are addresses for, and for
  /// a type that no cache has.
  KeyValueCache(const CacheShape& shape, std::int64_t capacity, DType dtype = DType::float32);

  const CacheShape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

  /// Tokens that it holds.
  std::int64_t tokens() const { return tokens_; }
  std::int64_t capacity() const { return capacity_; }

  /// Of a layer.
  CachedRows keys(std::size_t layer) { return rows_from(starts_[layer]); }
  CachedRows values(std::size_t layer) { return rows_from((starts_[layer] + starts_[layer + 1]) / 2); }

  /// Says that `count` tokens more have been written to all layers.
  void advance(std::int64_t count) { tokens_ += count; }

  /// Keeps the first `count` tokens alone. Throws std::invalid_argument where it has not as many.
  void truncate(std::int64_t count);

  /// Holds the first `count` tokens of another one afterwards, in place of its own. Throws std::invalid_argument where
  /// that has not as many, another shape or another type, or this no room for them.
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
