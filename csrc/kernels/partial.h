// Loads and stores of up to one vector: the ends of rows.
#pragma once

#include <cstdint>

namespace {

inline std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t max(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

inline Vec load_partial(const float* p, std::int64_t count) {
  return count >= Vec::width ? Vec::load(p) : Vec::load_masked(p, count);
}

/// Of values of another type, as floats.
template <class Value>
inline Vec load_partial(const Value* p, std::int64_t count) {
  if (count >= Vec::width) return Vec::load(p);
  Value part[Vec::width] = {};
  for (std::int64_t i = 0; i < count; ++i) part[i] = p[i];
  return Vec::load(part);
}

inline void store_partial(Vec v, float* p, std::int64_t count) {
  if (count >= Vec::width) {
    v.store(p);
  } else {
    v.store_masked(p, count);
  }
}

}  // namespace
