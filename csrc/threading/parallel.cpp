#include "parallel.h"

#include <atomic>
#include <stdexcept>

#include "pool.h"

namespace sparsekit {
namespace {

std::atomic<ParallelForFn> outside_parallel_for{nullptr};
std::atomic<NumThreadsFn> outside_num_threads{nullptr};

}  // namespace

void use_parallel(ParallelForFn parallel_for, NumThreadsFn num_threads) {
  outside_num_threads.store(num_threads);
  outside_parallel_for.store(parallel_for);
}

bool uses_outside_threads() { return outside_parallel_for.load() != nullptr; }

int num_threads() {
  const NumThreadsFn outside = outside_num_threads.load();
  std::uint32_t count = 1;
  if (outside == nullptr) return pool_threads();
  outside(&count);
  return static_cast<int>(count);
}

void run_parallel(std::int64_t tasks, ParallelBody body, void* context) {
  const ParallelForFn outside = outside_parallel_for.load();
  if (tasks <= 1) {
    body(0, tasks, context);
  } else if (outside != nullptr) {
    if (outside(0, tasks, 1, body, context) != 0) throw std::runtime_error("the parallel_for from outside failed");
  } else {
    pool_run(tasks, body, context);
  }
}

}  // namespace sparsekit
