// Separate the rows of sequences' first tokens from all others.
#pragma once

#include "sequences.h"

namespace sparsekit {

/// Number of nonempty sequences.
std::int64_t count_first_tokens(const Sequences& sequences);

/// Moves the rows of first tokens, of rows[tokens, features], to the front, one after the other.
void gather_first_tokens(const Sequences& sequences, std::int64_t features, float* rows);

/// Moves them back. Other rows are unspecified afterwards.
void scatter_first_tokens(const Sequences& sequences, std::int64_t features, float* rows);

}  // namespace sparsekit
