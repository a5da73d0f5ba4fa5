#include "rotary.h"

#include <algorithm>

#include "../kernels/range.h"
#include "../threading/parallel.h"

namespace sparsekit {
namespace {

/// As in layer_norm.cpp.
constexpr std::int64_t kInlineNumbers = 100'000;
constexpr std::int64_t kTasksPerThread = 4;

/// `half` cosines and sines, `half` pairs of features.
void rotate_head(const float* cosines, std::int64_t half, float* head) {
  const float* sines = cosines + half;
  float* others = head + half;
  for (std::int64_t f = 0; f < half; ++f) {
    const float one = head[f];
    const float other = others[f];
    head[f] = one * cosines[f] - other * sines[f];
    others[f] = other * cosines[f] + one * sines[f];
  }
}

/// The sequence of a token.
std::int64_t sequence_of(const Sequences& sequences, std::int64_t token) {
  const std::int64_t* ends = sequences.offsets + 1;
  return std::upper_bound(ends, ends + sequences.count, token + sequences.offsets[0]) - ends;
}

void rotate_tokens(const RotaryTable& table, std::int64_t heads, const Sequences& sequences, Range tokens,
                   float* input) {
  std::int64_t sequence = sequence_of(sequences, tokens.first);
  for (std::int64_t t = tokens.first; t < tokens.last; ++t) {
    while (t >= sequences.start(sequence + 1)) ++sequence;
    const float* row = table.rows + (t - sequences.start(sequence)) * table.head_dim;
    float* head = input + t * heads * table.head_dim;
    for (std::int64_t i = 0; i < heads; ++i) rotate_head(row, table.head_dim / 2, head + i * table.head_dim);
  }
}

}  // namespace

void rotate(const RotaryTable& table, std::int64_t heads, const Sequences& sequences, float* input) {
  const std::int64_t tokens = sequences.tokens();
  if (tokens == 0) return;
  const int threads = tokens * heads * table.head_dim < kInlineNumbers ? 1 : num_threads();
  if (threads == 1) return rotate_tokens(table, heads, sequences, {0, tokens}, input);
  const std::int64_t tasks = std::min<std::int64_t>(tokens, kTasksPerThread * threads);
  parallel(tasks, [&](std::int64_t i) {
    rotate_tokens(table, heads, sequences, {tokens * i / tasks, tokens * (i + 1) / tasks}, input);
  });
}

}  // namespace sparsekit
