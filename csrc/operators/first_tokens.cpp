#include "first_tokens.h"

#include <algorithm>

namespace sparsekit {

std::int64_t count_first_tokens(const Sequences& sequences) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < sequences.count; ++i) count += sequences.length(i) > 0 ? 1 : 0;
  return count;
}

void gather_first_tokens(const Sequences& sequences, std::int64_t features, float* rows) {
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < sequences.count; ++i) {
    if (sequences.length(i) == 0) continue;
    const std::int64_t token = sequences.start(i);  // never before `row`
    if (token != row) std::copy_n(rows + token * features, features, rows + row * features);
    ++row;
  }
}

void scatter_first_tokens(const Sequences& sequences, std::int64_t features, float* rows) {
  std::int64_t row = count_first_tokens(sequences);
  for (std::int64_t i = sequences.count - 1; i >= 0; --i) {
    if (sequences.length(i) == 0) continue;
    const std::int64_t token = sequences.start(i);
    if (token != --row) std::copy_n(rows + row * features, features, rows + token * features);
  }
}

}  // namespace sparsekit
