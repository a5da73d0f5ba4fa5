// Sequences of a batch, their tokens one after the other without padding.
#pragma once

#include <cstdint>

namespace sparsekit {

/// Sequence `i` has the tokens from `offsets[i]` to before `offsets[i + 1]`.
struct Sequences {
  const std::int64_t* offsets;
  std::int64_t count;

  std::int64_t tokens() const { return offsets[count]; }
  std::int64_t length(std::int64_t i) const { return offsets[i + 1] - offsets[i]; }
};

}  // namespace sparsekit
