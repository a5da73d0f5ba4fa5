// Container quotas, read from made-up file systems.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "threading/quota.h"

namespace fs = std::filesystem;
using sparsekit::quota_processors;

namespace {

/// A folder that looks like the root of a file system; gone when the test is.
struct Root {
  fs::path folder;

  Root() {
    std::string name = (fs::temp_directory_path() / "sparsekit-quota-XXXXXX").string();
    folder = ::mkdtemp(name.data());
  }
  ~Root() { fs::remove_all(folder); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((folder / path).parent_path());
    std::ofstream(folder / path) << text;
  }
  int processors() const { return quota_processors(folder.string()); }
};

void no_limit() {
  const Root root;
  CHECK(root.processors() == 0);
  root.write("proc/self/cgroup", "0::/\n");
  root.write("sys/fs/cgroup/cpu.max", "max 100000\n");
  CHECK(root.processors() == 0);
}

void version_two_rounds_up() {
  const Root root;
  root.write("proc/self/cgroup", "0::/\n");
  root.write("sys/fs/cgroup/cpu.max", "250000 100000\n");
  CHECK(root.processors() == 3);
  root.write("sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(root.processors() == 1);
}

void the_tightest_group_on_the_way_up_counts() {
  const Root root;
  root.write("proc/self/cgroup", "12:cpu:/x\n0::/outer/inner\n");
  root.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
  root.write("sys/fs/cgroup/outer/cpu.max", "200000 100000\n");
  CHECK(root.processors() == 2);
  root.write("sys/fs/cgroup/outer/inner/cpu.max", "100000 100000\n");
  CHECK(root.processors() == 1);
}

void version_one() {
  const Root root;
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK(root.processors() == 0);
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
  CHECK(root.processors() == 4);
}

void nonsense_is_no_limit() {
  const Root root;
  root.write("proc/self/cgroup", "0::/\n");
  root.write("sys/fs/cgroup/cpu.max", "many 0\n");
  CHECK(root.processors() == 0);
}

}  // namespace

int main() {
  no_limit();
  version_two_rounds_up();
  the_tightest_group_on_the_way_up_counts();
  version_one();
  nonsense_is_no_limit();
  return check::result();
}
