#include "pooling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sparsekit {
namespace {

void pool_one(Pooling how, const float* rows, std::int64_t count, std::int64_t features, float* output) {
  std::copy_n(rows, features, output);
  if (how == Pooling::cls) return;
  for (std::int64_t t = 1; t < count; ++t) {
    const float* row = rows + t * features;
    for (std::int64_t f = 0; f < features; ++f) {
      output[f] = how == Pooling::mean ? output[f] + row[f] : std::max(output[f], row[f]);
    }
  }
  if (how != Pooling::mean) return;
  const float part = 1.0F / static_cast<float>(count);
  for (std::int64_t f = 0; f < features; ++f) output[f] *= part;
}

}  // namespace

void pool(Pooling how, const float* input, std::int64_t features, const Sequences& sequences, float* output) {
  for (std::int64_t i = 0; i < sequences.count; ++i, output += features) {
    if (sequences.length(i) == 0) {
      std::fill_n(output, features, 0.0F);
    } else {
      pool_one(how, input + sequences.start(i) * features, sequences.length(i), features, output);
    }
  }
}

void normalize_rows(float* rows, std::int64_t count, std::int64_t features) {
  for (std::int64_t i = 0; i < count; ++i, rows += features) {
    const float length = std::sqrt(std::inner_product(rows, rows + features, rows, 0.0F));
    const float scale = 1.0F / std::max(length, 1e-12F);
    for (std::int64_t f = 0; f < features; ++f) rows[f] *= scale;
  }
}

}  // namespace sparsekit
