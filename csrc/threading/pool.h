// The pool for programs without torch: threads that look around for the next call for some 50 microseconds and then
// block, so that calls that follow one another start at once and an idle program costs nothing.
#pragma once

#include "parallel.h"

namespace sparsekit {

/// Threads the pool uses, the caller among them. At first: SPARSEKIT_NUM_THREADS if set, else the processors that
/// the affinity mask and the container's CPU quota leave to this process.
int pool_threads();

/// Uses `count` threads from the next call on. Throws std::invalid_argument below 1.
void set_pool_threads(int count);

/// Hands out the tasks one by one. A second caller while the pool is busy runs its tasks itself.
void pool_run(std::int64_t tasks, ParallelBody body, void* context);

}  // namespace sparsekit
