// Sequences of a batch, their tokens one after the other without padding.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Sequence `i` has the tokens from `start(i)` to before `start(i + 1)`.
struct Sequences {
  const std::int64_t* offsets;  // [count + 1]; what the first is counts for nothing
  std::int64_t count;

  std::int64_t start(std::int64_t i) const { return offsets[i] - offsets[0]; }
  std::int64_t tokens() const { return start(count); }
  std::int64_t length(std::int64_t i) const { return offsets[i + 1] - offsets[i]; }
};

}  // namespace sparsekit
