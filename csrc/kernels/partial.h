// Loads and stores of up to one vector: the ends of rows.
#pragma once

#include "views.h"

namespace {

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

inline Vector load_up_to(const float* p, std::int64_t count) {
  return count >= Vector::width ? Vector::load(p) : Vector::load_first(p, count);
}

inline void store_up_to(Vector v, float* p, std::int64_t count) {
  if (count >= Vector::width) {
    v.store(p);
  } else {
    v.store_first(p, count);
  }
}

}  // namespace
