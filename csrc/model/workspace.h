// Working memory of model calls: one piece a call, kept for the next one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace sparsekit {

/// Tokens of a thread that go through the layers together: what lies between two operators then stays in cache.
inline constexpr std::int64_t kGroupTokens = 256;

struct AlignedDelete {
  void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
};

/// Bytes at a multiple of 64.
struct Workspace {
  std::unique_ptr<std::byte, AlignedDelete> data;
  std::size_t bytes = 0;
};

Workspace make_workspace(std::size_t bytes);

/// Hands out workspaces to calls that run at the same time, and keeps a few of those that came back.
class WorkspacePool {
 public:
  /// At least `bytes` bytes.
  Workspace take(std::size_t bytes);
  void give_back(Workspace workspace);

 private:
  static constexpr std::size_t kKept = 4;
  std::mutex mutex_;
  std::vector<Workspace> kept_;
};

}  // namespace sparsekit
