#include "pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "quota.h"

namespace sparsekit {
namespace {

/// Threads beyond the number of processors only wait for each other, so their number is limited; small machines get
/// some more for tests and changing quotas.
int most_threads() {
  constexpr unsigned kFewestAllowed = 64;
  return static_cast<int>(std::max(kFewestAllowed, std::thread::hardware_concurrency()));
}

int first_thread_count() {
  const char* wanted = std::getenv("SPARSEKIT_NUM_THREADS");
  const long count = wanted == nullptr ? 0 : std::strtol(wanted, nullptr, 10);
  return count > 0 ? static_cast<int>(std::min<long>(count, most_threads())) : usable_processors();
}

class Pool {
 public:
  /// If the system refuses a thread, the pool works with fewer.
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      return;
    }
  }

  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_.store(true);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Workers that wake up after all tasks were taken are not waited for: they find the run closed.
  void run(std::int64_t tasks, ParallelBody body, void* context) {
    bool someone_sleeps = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      body_ = body;
      context_ = context;
      tasks_ = tasks;
      next_.store(0);
      open_ = true;
      generation_.fetch_add(1);
      someone_sleeps = sleeping_ > 0;
    }
    if (someone_sleeps) wake_.notify_all();
    take_tasks(tasks, body, context);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
    }
    spin_while([this] { return running_.load() > 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_.load() == 0; });
  }

 private:
  void take_tasks(std::int64_t tasks, ParallelBody body, void* context) {
    for (std::int64_t i = next_.fetch_add(1); i < tasks; i = next_.fetch_add(1)) body(i, i + 1, context);
  }

  /// Waking a sleeping thread takes tens of microseconds in a virtual machine, and calls follow one another, so idle
  /// threads spin for a moment first.
  template <class Condition>
  static void spin_while(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    while (condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  }

  void work() {
    std::uint64_t seen = 0;
    while (true) {
      spin_while([&] { return generation_.load() == seen && !stopping_.load(); });
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, [&] { return stopping_.load() || generation_.load() != seen; });
      --sleeping_;
      if (stopping_.load()) return;
      seen = generation_.load();
      if (!open_) continue;
      running_.fetch_add(1);
      const auto tasks = tasks_;
      const auto body = body_;
      auto* const context = context_;
      lock.unlock();
      take_tasks(tasks, body, context);
      lock.lock();
      if (running_.fetch_sub(1) == 1) done_.notify_one();
    }
  }

  static constexpr std::chrono::microseconds kSpin{50};

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::atomic<std::int64_t> next_{0};
  std::int64_t tasks_ = 0;
  ParallelBody body_ = nullptr;
  void* context_ = nullptr;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> running_{0};  // workers that take tasks
  int sleeping_ = 0;
  bool open_ = false;  // whether workers may begin to take tasks
  std::atomic<bool> stopping_{false};
};

/// Everything a forked child must not inherit: its copy has no threads and perhaps a locked mutex.
struct State {
  explicit State(int count) : threads(count) {}

  std::mutex busy;
  std::atomic<int> threads;
  Pool* pool = nullptr;
  int pool_size = 0;
};

State* state = nullptr;

/// Leaks on purpose: workers may still run while the process exits, and a child cannot free what it inherited.
State& current_state() {
  static const bool ready = [] {
    state = new State(first_thread_count());
    return pthread_atfork(nullptr, nullptr, [] { state = new State(state->threads.load()); }) == 0;
  }();
  (void)ready;
  return *state;
}

}  // namespace

int pool_threads() { return current_state().threads.load(); }

void set_pool_threads(int count) {
  if (count < 1) throw std::invalid_argument("the number of threads must be at least 1, got " + std::to_string(count));
  if (count > most_threads()) {
    throw std::invalid_argument("the number of threads must be at most " + std::to_string(most_threads()) +
                                " on this machine, got " + std::to_string(count));
  }
  current_state().threads.store(count);
}

void pool_run(std::int64_t tasks, ParallelBody body, void* context) {
  State& own = current_state();
  const int threads = own.threads.load();
  std::unique_lock<std::mutex> lock(own.busy, std::try_to_lock);
  if (!lock.owns_lock() || threads == 1) return body(0, tasks, context);
  if (own.pool_size != threads) {
    delete own.pool;
    own.pool = nullptr;
    own.pool_size = 0;
    own.pool = new Pool(threads);
    own.pool_size = threads;
  }
  own.pool->run(tasks, body, context);
}

}  // namespace sparsekit
