// Declarations for instruction sets that do not gather eight inputs at a time; named by kernels, never instantiated.
#pragma once

#include <cstdint>

namespace {

inline constexpr bool kGathersInputs = false;

struct Vec4 {
  static Vec4 load(const float* p);
  static Vec4 broadcast(float x);
  static Vec4 zero();
  template <class Value>
  static Vec4 adjacent(const Value* p);
  void store(float* p) const;
  Vec4 operator+(Vec4 other) const;
};

template <class V>
Vec4 add_halves(V v);
template <class V>
float reduce_add(V v);

}  // namespace
