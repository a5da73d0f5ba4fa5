#include "rotary.h"

#include <algorithm>
#include <stdexcept>
#include <string>

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

std::int64_t first_position(const RotaryCall& call, std::int64_t sequence) {
  return call.first_positions == nullptr ? 0 : call.first_positions[sequence];
}

void check(const RotaryTable& table, const RotaryCall& call) {
  if (call.head_dim < table.head_dim) {
    throw std::invalid_argument("heads must have at least the " + std::to_string(table.head_dim) +
                                " features of the rotary table, got " + std::to_string(call.head_dim));
  }
  for (std::int64_t i = 0; i < call.sequences.count; ++i) {
    const std::int64_t first = first_position(call, i);
    if (first >= 0 && first <= table.positions - call.sequences.length(i)) continue;
    throw std::invalid_argument("positions must be from 0 to " + std::to_string(table.positions - 1) + ", got " +
                                std::to_string(call.sequences.length(i)) + " tokens from position " +
                                std::to_string(first) + " on in sequence " + std::to_string(i));
  }
}

void rotate_tokens(const RotaryTable& table, const RotaryCall& call, Range tokens) {
  const Sequences& sequences = call.sequences;
  std::int64_t sequence = sequence_of(sequences, tokens.first);
  for (std::int64_t t = tokens.first; t < tokens.last; ++t) {
    while (t >= sequences.start(sequence + 1)) ++sequence;
    const std::int64_t position = first_position(call, sequence) + t - sequences.start(sequence);
    const float* row = table.rows + position * table.head_dim;
    float* head = call.input + t * call.heads * call.head_dim;
    for (std::int64_t i = 0; i < call.heads; ++i) rotate_head(row, table.head_dim / 2, head + i * call.head_dim);
  }
}

}  // namespace

void rotate(const RotaryTable& table, const RotaryCall& call) {
  check(table, call);
  const std::int64_t tokens = call.sequences.tokens();
  if (tokens == 0) return;
  const int threads = tokens * call.heads * table.head_dim < kInlineNumbers ? 1 : num_threads();
  if (threads == 1) return rotate_tokens(table, call, {0, tokens});
  const std::int64_t tasks = std::min<std::int64_t>(tokens, kTasksPerThread * threads);
  parallel(tasks, [&](std::int64_t i) { rotate_tokens(table, call, {tokens * i / tasks, tokens * (i + 1) / tasks}); });
}

}  // namespace sparsekit
