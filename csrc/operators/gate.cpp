#include "gate.h"

#include "../threading/parallel.h"

namespace sparsekit {
namespace {

/// As in layer_norm.cpp.
constexpr std::int64_t kInlineNumbers = 100'000;
constexpr std::int64_t kTasksPerThread = 4;

void multiply(float* hidden, const float* gate, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) hidden[i] *= gate[i];
}

}  // namespace

void multiply_gate(float* hidden, const float* gate, std::int64_t count) {
  if (count < kInlineNumbers || num_threads() == 1) return multiply(hidden, gate, 0, count);
  const std::int64_t tasks = kTasksPerThread * num_threads();
  parallel(tasks, [&](std::int64_t i) { multiply(hidden, gate, count * i / tasks, count * (i + 1) / tasks); });
}

}  // namespace sparsekit
