#include "quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace sparsekit {
namespace {

int affinity_count() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// Processors that `quota` of every `period` microseconds amount to; 0 when there is no limit.
int processors_of(double quota, double period) {
  if (quota <= 0 || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
}

/// `cpu.max` holds "<quota or max> <period>".
int quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max") return 0;
  std::istringstream number(quota);
  double value = 0;
  return number >> value ? processors_of(value, period) : 0;
}

int quota_v1(const std::string& root) {
  double quota = 0;
  double period = 0;
  std::ifstream(root + "/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream(root + "/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  return processors_of(quota, period);
}

/// Path of this process's cgroup v2 below /sys/fs/cgroup: the line "0::/path".
std::string own_cgroup(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  }
  return "";
}

int tighter(int a, int b) { return a == 0 ? b : (b == 0 ? a : std::min(a, b)); }

}  // namespace

int quota_processors(const std::string& root) {
  int limit = quota_v1(root);
  std::string path = own_cgroup(root);
  while (true) {
    limit = tighter(limit, quota_v2(root + "/sys/fs/cgroup" + (path == "/" ? "" : path)));
    const auto slash = path.find_last_of('/');
    if (path.empty() || slash == std::string::npos) return limit;
    path.resize(slash);
  }
}

int usable_processors() { return std::max(1, tighter(affinity_count(), quota_processors(""))); }

}  // namespace sparsekit
