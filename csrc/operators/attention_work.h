// Constants for splitting attention over threads.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Below this many multiply-adds, about 15 microseconds on one core, waking other threads costs more than it gives.
inline constexpr std::int64_t kInlineAttention = 1'000'000;

/// With this many tasks per thread, uneven tasks no longer matter.
inline constexpr std::int64_t kAttentionTasks = 4;

}  // namespace sparsekit
