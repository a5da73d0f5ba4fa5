#include "key_value_cache.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

/// Bytes of the scale of a row.
std::int64_t scale_bytes(DType dtype) { return dtype_entry(dtype).scaled ? kFloat : 0; }

/// Whose bytes have addresses.
std::int64_t most_tokens(const CacheShape& shape, DType dtype) {
  return std::numeric_limits<std::int64_t>::max() / std::max<std::int64_t>(shape.bytes(dtype), 1);
}

void check_count(std::int64_t count, std::int64_t most, const char* of) {
  if (count < 0 || count > most) {
    throw std::invalid_argument("tokens of a cache must be from 0 to the " + std::to_string(most) + " " + of +
                                ", got " + std::to_string(count));
  }
}

}  // namespace

std::int64_t CacheShape::bytes(DType dtype) const {
  const std::int64_t row = head_dim * dtype_entry(dtype).bytes + scale_bytes(dtype);
  return 2 * row * std::accumulate(heads.begin(), heads.end(), std::int64_t{0});
}

KeyValueCache::KeyValueCache(const CacheShape& shape, std::int64_t capacity, DType dtype)
    : shape_(shape), capacity_(capacity), dtype_(cache_dtype_named(dtype_entry(dtype).name)), starts_{0} {
  if (capacity < 1 || capacity > most_tokens(shape, dtype)) {
    throw std::invalid_argument("a cache needs room for 1 to " + std::to_string(most_tokens(shape, dtype)) +
                                " tokens, got " + std::to_string(capacity));
  }
  for (const std::int64_t heads : shape.heads) starts_.push_back(starts_.back() + 2 * heads);
  memory_ = make_workspace(static_cast<std::size_t>(capacity * shape.bytes(dtype)));
}

CachedRows KeyValueCache::rows_from(std::int64_t head) {
  std::byte* const scales = memory_.data.get();
  std::byte* const rows = scales + starts_.back() * capacity_ * scale_bytes(dtype_);
  const std::int64_t first = head * capacity_;
  return {dtype_, rows + first * shape_.head_dim * dtype_entry(dtype_).bytes,
          dtype_entry(dtype_).scaled ? reinterpret_cast<float*>(scales) + first : nullptr, capacity_};
}

void KeyValueCache::truncate(std::int64_t count) {
  check_count(count, tokens_, "that it holds");
  tokens_ = count;
}

void KeyValueCache::copy(KeyValueCache& other, std::int64_t count) {
  if (shape_ != other.shape_) throw std::invalid_argument("caches of different models; copy one of the same model");
  if (dtype_ != other.dtype_) {
    throw std::invalid_argument("caches of different types, " + std::string(dtype_entry(dtype_).name) + " and " +
                                dtype_entry(other.dtype_).name + "; copy one of the same type");
  }
  check_count(count, other.tokens_, "that the other one holds");
  check_count(count, capacity_, "that there is room for");
  for (std::int64_t head = 0; head < starts_.back(); ++head) {
    const CachedRows from = other.rows_from(head);
    const CachedRows to = rows_from(head);
    std::copy_n(from.rows, count * shape_.head_dim * dtype_entry(dtype_).bytes, to.rows);
    if (to.scales != nullptr) std::copy_n(from.scales, count, to.scales);
  }
  tokens_ = count;
}

}  // namespace sparsekit
