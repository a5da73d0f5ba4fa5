#include "workspace.h"

#include <algorithm>
#include <utility>

namespace sparsekit {

Workspace make_workspace(std::size_t bytes) {
  auto* data = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64}));
  return {std::unique_ptr<std::byte, AlignedDelete>(data), bytes};
}

Workspace WorkspacePool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    std::sort(kept_.begin(), kept_.end(), [](const auto& one, const auto& other) { return one.bytes < other.bytes; });
    const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& kept) { return kept.bytes >= bytes; });
    if (found != kept_.end()) {
      Workspace taken = std::move(*found);
      kept_.erase(found);
      return taken;
    }
    if (!kept_.empty()) kept_.erase(kept_.begin());  // the smallest makes room for the new one
  }
  return make_workspace(bytes);
}

void WorkspacePool::give_back(Workspace workspace) {
  const std::lock_guard lock(mutex_);
  if (kept_.size() < kKept) kept_.push_back(std::move(workspace));
}

}  // namespace sparsekit
