// Peak FMA throughput: the ceiling of the other kernels.
#pragma once

#include <cstdint>

namespace {

/// Independent accumulators: enough to hide FMA latency on any core, few enough for its registers.
inline constexpr int kPeakChains = 12;

/// `rounds` FMAs on each accumulator, on registers only. Initial values differ, so that compilers cannot merge
/// accumulators. Returns a number that depends on all of them.
inline float peak_f32(std::int64_t rounds) {
  Vec sum[kPeakChains];
  for (int c = 0; c < kPeakChains; ++c) sum[c] = Vec::broadcast(1.0F + 0.01F * static_cast<float>(c));
  const Vec factor = Vec::broadcast(0.999F);
  const Vec term = Vec::broadcast(0.001F);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kPeakChains; ++c) sum[c] = fma(sum[c], factor, term);
  }
  for (int c = 1; c < kPeakChains; ++c) sum[0] = sum[0] + sum[c];
  float first[Vec::width];
  sum[0].store(first);
  return first[0];
}

}  // namespace
