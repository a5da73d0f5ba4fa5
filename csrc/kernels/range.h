// A half-open range of rows, features, tokens, queries or keys.
#pragma once

#include <cstdint>

namespace sparsekit {

struct Range {
  std::int64_t first;
  std::int64_t last;
};

}  // namespace sparsekit
