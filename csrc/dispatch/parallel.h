// Who runs the work. The core takes a `parallel_for` function: torch's own when torch is loaded (its plain C symbol
// torch_parallel_for has exactly this signature, so torch.set_num_threads rules), else a small pool of its own.
#pragma once

#include <cstdint>
#include <type_traits>

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

/// Runs `body` over [0, tasks) in pieces, on as many threads as there are, and returns when all are done.
void run_parallel(std::int64_t tasks, ParallelBody body, void* context);

/// Runs `body(i)` for every i in [0, tasks), as above. `body` must not throw.
template <class Body>
void parallel(std::int64_t tasks, Body&& body) {
  const auto range = [](std::int64_t begin, std::int64_t end, void* context) {
    auto& each = *static_cast<std::remove_reference_t<Body>*>(context);
    for (std::int64_t i = begin; i < end; ++i) each(i);
  };
  using Context = std::remove_const_t<std::remove_reference_t<Body>>;
  run_parallel(tasks, range, const_cast<Context*>(&body));
}

}  // namespace sparsekit
