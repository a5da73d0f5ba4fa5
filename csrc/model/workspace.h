// Working memory of model calls: one buffer per call, reused by later calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace sparsekit {

/// Tokens per thread that go through the layers together: activations between operators then stay in cache.
inline constexpr std::int64_t kGroupTokens = 256;

struct AlignedDelete {
  void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
};

/// Buffer aligned to 64 bytes.
struct Workspace {
  std::unique_ptr<std::byte, AlignedDelete> data;
  std::size_t bytes = 0;
};

Workspace make_workspace(std::size_t bytes);

/// Pool of workspaces for concurrent calls, which keeps a few idle ones.
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
