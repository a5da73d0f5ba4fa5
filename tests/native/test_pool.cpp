// The pool: every task runs exactly once, whatever the number of threads, callers and forks.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "dispatch/pool.h"
#include "dispatch/quota.h"
#include "layer.h"

using namespace sparsekit;

namespace {

// The thread sanitizer knows no threads in a forked child.
#if defined(__SANITIZE_THREAD__)
constexpr bool kForks = false;
#else
constexpr bool kForks = true;
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
  CHECK(pool_threads() == 2);
  CHECK(usable_processors() >= 1);
}

/// Enough work to be shared between threads.
struct Work {
  Layer layer = random_layer(256, 256, 0.5);
  Bytes weight = packed(layer.view(), "panel");
  std::vector<float> input = random_floats(64 * 256, 2);

  std::vector<float> output() const { return output_of(layer, weight, Direction::forward, input, 64); }
};

/// Whether a forked child gets `expected` with threads of its own. The alarm ends a child that hangs.
bool child_computes(const Work& work, const std::vector<float>& expected) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    const bool right = pool_threads() == 3 && work.output() == expected && each_runs_once(100);
    set_pool_threads(4);
    _exit(right && work.output() == expected ? 0 : 1);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
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

}  // namespace

int main() {
  refuses_counts();
  tasks_run_once();
  threads_run_together();
  callers_at_once();
  if (kForks) {
    children_compute();
    children_of_busy_pool_compute();
  }
  return check::result();
}
