#include "layer_norm.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../threading/parallel.h"
#include "instruction_set.h"

namespace sparsekit {
namespace {

/// Below this many numbers, about 15 microseconds on one core, waking other threads costs more than it gives.
constexpr std::int64_t kInlineNumbers = 100'000;
/// With this many tasks for each thread, uneven ones no longer matter.
constexpr std::int64_t kTasksPerThread = 4;

LayerNormRows part_of(LayerNormRows rows, std::int64_t first, std::int64_t last) {
  rows.input += first * rows.features;
  if (rows.added != nullptr) rows.added += first * rows.features;
  if (rows.sums != nullptr) rows.sums += first * rows.features;
  rows.output += first * rows.features;
  rows.count = last - first;
  return rows;
}

}  // namespace

void add_layer_norm(const LayerNormRows& rows) {
  if (rows.count < 0 || rows.features < 0) {
    throw std::invalid_argument("rows and features must not be negative, got " + std::to_string(rows.count) + " and " +
                                std::to_string(rows.features));
  }
  if (rows.count == 0 || rows.features == 0) return;
  const auto kernel = current_kernels().add_layer_norm;
  const int threads = rows.count * rows.features < kInlineNumbers ? 1 : num_threads();
  if (threads == 1) return kernel(rows);
  const std::int64_t tasks = std::min<std::int64_t>(rows.count, kTasksPerThread * threads);
  parallel(tasks, [&](std::int64_t i) { kernel(part_of(rows, rows.count * i / tasks, rows.count * (i + 1) / tasks)); });
}

}  // namespace sparsekit
