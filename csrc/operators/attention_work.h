// How attention is split over threads.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Below this many multiply-adds, about 15 microseconds on one core, waking other threads costs more than it gives.
inline constexpr std::int64_t kInlineAttention = 1'000'000;

/// With this many tasks for each thread, uneven ones no longer matter.
inline constexpr std::int64_t kAttentionTasks = 4;

}  // namespace sparsekit
