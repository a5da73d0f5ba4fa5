// Thread pool for programs without torch: threads spin for some 50 microseconds and then block, so that consecutive
// calls start at once and an idle program uses no processor time.
#pragma once

#include "parallel.h"

namespace sparsekit {

/// Threads the pool uses, the caller among them. At first: SPARSEKIT_NUM_THREADS if set, else the processors that
/// the affinity mask and the container's CPU quota leave to this process.
int pool_threads();

/// Uses `count` threads from the next call on. Throws std::invalid_argument below 1.
void set_pool_threads(int count);

/// Threads take tasks one by one. While the pool is busy, further callers run their tasks themselves.
void pool_run(std::int64_t tasks, ParallelBody body, void* context);

}  // namespace sparsekit
