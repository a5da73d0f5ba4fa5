// Keys and values of one sequence, for all layers of a decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "workspace.h"

namespace sparsekit {

/// What a layer keeps of a token: a key and a value of `head_dim` floats for each of its heads.
struct CacheShape {
  std::vector<std::int64_t> heads;  // of keys, in each layer
  std::int64_t head_dim = 0;

  bool operator==(const CacheShape&) const = default;

  /// Floats of a token in all layers.
  std::int64_t floats() const;
};

/// float32, for each layer keys [heads, capacity, head_dim], then values alike. Memory is taken from the system as
/// tokens come: a page that holds none takes no room.
class KeyValueCache {
 public:
  /// Room for `capacity` tokens. Throws std::invalid_argument for none, and for more than there are addresses for.
  KeyValueCache(const CacheShape& shape, std::int64_t capacity);

  const CacheShape& shape() const { return shape_; }

  /// Tokens that it holds.
  std::int64_t tokens() const { return tokens_; }
  std::int64_t capacity() const { return capacity_; }

  /// Of a layer: [heads, capacity, head_dim].
  float* keys(std::size_t layer) { return floats() + starts_[layer]; }
  float* values(std::size_t layer) { return keys(layer) + (starts_[layer + 1] - starts_[layer]) / 2; }

  /// Says that `count` tokens more have been written to all layers.
  void advance(std::int64_t count) { tokens_ += count; }

  /// Keeps the first `count` tokens alone. Throws std::invalid_argument where it has not as many.
  void truncate(std::int64_t count);

  /// Holds the first `count` tokens of another one afterwards, in place of its own. Throws std::invalid_argument where
  /// that has not as many or another shape, or this no room for them.
  void copy(KeyValueCache& other, std::int64_t count);

 private:
  float* floats() { return reinterpret_cast<float*>(memory_.data.get()); }

  CacheShape shape_;
  std::int64_t capacity_;
  std::int64_t tokens_ = 0;
  std::vector<std::int64_t> starts_;  // floats before each layer, and of all
  Workspace memory_;
};

}  // namespace sparsekit
