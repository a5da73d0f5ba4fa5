// Parallel loops. The core takes a `parallel_for` function: torch's own when torch is loaded (its plain C symbol
// torch_parallel_for has exactly this signature, so torch.set_num_threads rules), else a small pool of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

namespace sparsekit {

using ParallelBody = void (*)(std::int64_t begin, std::int64_t end, void* context);
using ParallelForFn = std::int32_t (*)(std::int64_t begin, std::int64_t end, std::int64_t grain, ParallelBody body,
                                       void* context);
using NumThreadsFn = std::int32_t (*)(std::uint32_t* count);

/// Uses these two functions from now on; null pointers go back to the pool.
void use_parallel(ParallelForFn parallel_for, NumThreadsFn num_threads);

/// Whether functions from outside are in use.
bool uses_outside_threads();

/// Threads that `parallel` can use.
int num_threads();

/// Runs `body` over [0, tasks) in pieces, on as many threads as there are, and returns when all are done. `body` must
/// not throw. Throws std::runtime_error when the functions from outside report a failure.
void run_parallel(std::int64_t tasks, ParallelBody body, void* context);

/// Runs `body(i)` for every i in [0, tasks), as above. What `body` throws first is thrown here, after all threads are
/// done; tasks not yet begun are then skipped.
template <class Body>
void parallel(std::int64_t tasks, const Body& body) {
  struct Shared {
    const Body& body;
    std::atomic<bool> failed{false};
    std::exception_ptr error;
  } shared{body, {}, {}};
  const auto range = [](std::int64_t begin, std::int64_t end, void* context) {
    auto& own = *static_cast<Shared*>(context);
    try {
      for (std::int64_t i = begin; i < end && !own.failed.load(); ++i) own.body(i);
    } catch (...) {
      if (!own.failed.exchange(true)) own.error = std::current_exception();
    }
  };
  run_parallel(tasks, range, &shared);
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace sparsekit
