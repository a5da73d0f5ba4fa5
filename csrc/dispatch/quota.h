// How many processors the operating system leaves to this process.
#pragma once

namespace sparsekit {

/// Processors in the affinity mask, or fewer where a cgroup quota (v2 `cpu.max`, v1 `cpu.cfs_quota_us`) says so;
/// at least 1.
int usable_processors();

}  // namespace sparsekit
