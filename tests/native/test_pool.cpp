// The pool: every task runs exactly once, whatever the number of threads, callers and forks.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <system_error>
#include <thread>

#include "check.h"
#include "layer.h"
#include "threading/parallel.h"
#include "threading/pool.h"
#include "threading/quota.h"

using namespace sparsekit;

namespace {

// The thread sanitizer knows no threads in a forked child, and no sanitizer lives with little address space.
#if defined(__SANITIZE_THREAD__)
constexpr bool kForks = false;
constexpr bool kLimitsMemory = false;
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool kForks = true;
constexpr bool kLimitsMemory = false;
#else
constexpr bool kForks = true;
constexpr bool kLimitsMemory = true;
#endif

using Counts = std::vector<std::atomic<int>>;

void count_tasks(std::int64_t begin, std::int64_t end, void* context) {
  for (std::int64_t i = begin; i < end; ++i) static_cast<Counts*>(context)->data()[i].fetch_add(1);
}

bool each_runs_once(std::int64_t tasks) {
  Counts counts(static_cast<std::size_t>(tasks));
  pool_run(tasks, count_tasks, &counts);
  for (const auto& count : counts) {
    if (count.load() != 1) return false;
  }
  return true;
}

/// Many rounds, since a task lost or run twice by a race is rare; growing and shrinking replaces the threads.
void tasks_run_once() {
  for (const int threads : {1, 2, 4, 3, 2, 1, 8, 4}) {
    set_pool_threads(threads);
    CHECK(pool_threads() == threads);
    for (const std::int64_t tasks : {0, 1, 2, 3, 4, 5, 7, 8, 16, 33, 100, 1000}) {
      for (int round = 0; round < 50; ++round) {
        CHECK_CASE(each_runs_once(tasks), std::to_string(tasks) + " tasks, " + std::to_string(threads) + " threads");
      }
    }
  }
}

/// All threads must take part: each of the tasks waits until the others have begun.
void threads_run_together() {
  set_pool_threads(4);
  std::atomic<int> begun{0};
  const auto wait_for_others = [](std::int64_t, std::int64_t, void* context) {
    auto& count = *static_cast<std::atomic<int>*>(context);
    ++count;
    while (count.load() < 4) std::this_thread::yield();
  };
  pool_run(4, wait_for_others, &begun);
  CHECK(begun.load() == 4);
}

void callers_at_once() {
  set_pool_threads(3);
  std::atomic<int> wrong{0};
  const auto call = [&wrong] {
    for (int round = 0; round < 300; ++round) wrong += each_runs_once(20) ? 0 : 1;
  };
  std::thread first(call);
  std::thread second(call);
  first.join();
  second.join();
  CHECK(wrong.load() == 0);
}

void refuses_counts() {
  set_pool_threads(2);
  CHECK_THROWS(set_pool_threads(0), "the number of threads must be at least 1, got 0");
  CHECK_THROWS(set_pool_threads(-4), "the number of threads must be at least 1, got -4");
  CHECK_THROWS(set_pool_threads(100'000), "on this machine, got 100000");
  CHECK(pool_threads() == 2);
  CHECK(usable_processors() >= 1);
}

/// Enough work to be shared between threads.
struct Work {
  Layer layer = random_layer(256, 256, 0.5);
  Bytes weight = packed(layer.view());
  std::vector<float> input = random_floats(64 * 256, 2);

  std::vector<float> output() const { return output_of(layer, weight, Direction::forward, input, 64); }
};

/// Whether `body` returns true in a forked child. The alarm ends a child that hangs.
template <class Body>
bool child_succeeds(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Whether a child gets `expected` with the threads that it inherits as a number, and with more.
bool child_computes(const Work& work, const std::vector<float>& expected) {
  return child_succeeds([&] {
    const bool right = pool_threads() == 3 && work.output() == expected && each_runs_once(100);
    set_pool_threads(4);
    return right && work.output() == expected;
  });
}

void children_compute() {
  set_pool_threads(3);
  const Work work;
  const std::vector<float> expected = work.output();
  for (int round = 0; round < 5; ++round) CHECK(child_computes(work, expected));
  CHECK(work.output() == expected);
}

/// The child inherits the pool in the middle of a call of another thread: locked, and with tasks that nobody runs.
void children_of_busy_pool_compute() {
  set_pool_threads(3);
  const Work work;
  const std::vector<float> expected = work.output();
  std::atomic<bool> stop{false};
  std::thread other([&stop] {
    while (!stop.load()) each_runs_once(50);
  });
  for (int round = 0; round < 5; ++round) CHECK(child_computes(work, expected));
  stop.store(true);
  other.join();
}

/// Leaves room for the stacks of a few more threads.
void limit_memory() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const auto used = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE));
  const rlimit limit{used + 64'000'000, RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
}

/// The system may refuse threads: memory and process limits of a container. Whether the pool then throws or makes do
/// with fewer, it must neither hang nor be unusable afterwards.
bool recovers_from_refused_threads() {
  set_pool_threads(2);
  bool right = each_runs_once(10);
  limit_memory();
  set_pool_threads(64);
  try {
    right = each_runs_once(1000) && right;
  } catch (const std::system_error&) {
  }
  set_pool_threads(2);
  return right && each_runs_once(10);
}

/// What a task throws reaches the caller, and the pool works on.
void passes_errors_on() {
  set_pool_threads(3);
  for (int round = 0; round < 20; ++round) {
    CHECK_THROWS(parallel(100,
                          [](std::int64_t i) {
                            if (i % 7 == 3) throw std::invalid_argument("task failed");
                          }),
                 "task failed");
    std::atomic<int> runs{0};
    parallel(100, [&](std::int64_t) { ++runs; });
    CHECK(runs == 100);
  }
}

}  // namespace

int main() {
  passes_errors_on();
  refuses_counts();
  tasks_run_once();
  threads_run_together();
  callers_at_once();
  if (kForks) {
    children_compute();
    children_of_busy_pool_compute();
    if (kLimitsMemory) CHECK(child_succeeds(recovers_from_refused_threads));
  }
  return check::result();
}
