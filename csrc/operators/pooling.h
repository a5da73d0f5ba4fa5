// Pooling: one vector for every sequence of a batch of tokens.
#pragma once

#include <cstdint>

#include "sequences.h"

namespace sparsekit {

enum class Pooling : std::int32_t { none = 0, mean = 1, cls = 2, max = 3 };

/// output[count, features] = mean, first (cls) or maximum of the rows of `input`, [tokens, features], of each sequence;
/// zeros for one without tokens.
void pool(Pooling how, const float* input, std::int64_t features, const Sequences& sequences, float* output);

/// Divides rows by their length (as torch's normalize: by at least 1e-12).
void normalize_rows(float* rows, std::int64_t count, std::int64_t features);

}  // namespace sparsekit
