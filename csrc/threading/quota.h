// How many processors the operating system leaves to this process.
#pragma once

#include <string>

namespace sparsekit {

/// Processors that the cgroup quotas (v2 `cpu.max` of this process's group and those above it, v1 `cpu.cfs_quota_us`)
/// in the file system at `root` amount to, rounded up; 0 where there is no limit.
int quota_processors(const std::string& root);

/// Processors in the affinity mask, or fewer where a quota says so; at least 1.
int usable_processors();

}  // namespace sparsekit
