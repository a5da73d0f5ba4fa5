#include "key_value_cache.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

/// Whose bytes, of all layers or of a head in a model without layers, have addresses.
std::int64_t most_tokens(const CacheShape& shape) {
  constexpr auto kBytes = std::numeric_limits<std::int64_t>::max() / static_cast<std::int64_t>(sizeof(float));
  return kBytes / std::max(shape.floats(), shape.head_dim);
}

void check_count(std::int64_t count, std::int64_t most, const char* of) {
  if (count < 0 || count > most) {
    throw std::invalid_argument("tokens of a cache must be from 0 to the " + std::to_string(most) + " " + of +
                                ", got " + std::to_string(count));
  }
}

}  // namespace

std::int64_t CacheShape::floats() const {
  return 2 * head_dim * std::accumulate(heads.begin(), heads.end(), std::int64_t{0});
}

KeyValueCache::KeyValueCache(const CacheShape& shape, std::int64_t capacity)
    : shape_(shape), capacity_(capacity), starts_{0} {
  if (capacity < 1 || capacity > most_tokens(shape)) {
    throw std::invalid_argument("a cache needs room for 1 to " + std::to_string(most_tokens(shape)) + " tokens, got " +
                                std::to_string(capacity));
  }
  for (const std::int64_t heads : shape.heads) {
    starts_.push_back(starts_.back() + 2 * heads * capacity * shape.head_dim);
  }
  memory_ = make_workspace(static_cast<std::size_t>(starts_.back()) * sizeof(float));
}

void KeyValueCache::truncate(std::int64_t count) {
  check_count(count, tokens_, "that it holds");
  tokens_ = count;
}

void KeyValueCache::copy(KeyValueCache& other, std::int64_t count) {
  if (shape_ != other.shape_) throw std::invalid_argument("caches of different models; copy one of the same model");
  check_count(count, other.tokens_, "that the other one holds");
  check_count(count, capacity_, "that there is room for");
  const std::int64_t heads = starts_.back() / (capacity_ * shape_.head_dim);  // of keys and of values, in all layers
  for (std::int64_t head = 0; head < heads; ++head) {
    std::copy_n(other.floats() + head * other.capacity_ * shape_.head_dim, count * shape_.head_dim,
                floats() + head * capacity_ * shape_.head_dim);
  }
  tokens_ = count;
}

}  // namespace sparsekit
