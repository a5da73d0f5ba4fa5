// A case of attention over caches of one type, as `AttentionCase` describes it: what is stored, and attention over
// that.
#pragma once

#include <memory>

#include "attention_case.h"
#include "formats/values.h"
#include "operators/cache_attention.h"

inline constexpr sparsekit::DType kCacheDTypes[] = {sparsekit::DType::float32, sparsekit::DType::bfloat16,
                                                    sparsekit::DType::int8};

/// Keys or values of a sequence, which end where the memory ends.
class StoredRows {
 public:
  StoredRows(sparsekit::DType dtype, std::int64_t heads, std::int64_t capacity, std::int64_t head_dim)
      : dtype_(dtype),
        capacity_(capacity),
        head_dim_(head_dim),
        bytes_(heads * capacity * head_dim * sparsekit::dtype_entry(dtype).bytes),
        rows_(size((bytes_ + 3) / 4), Place::page_end),
        scales_(size(heads * capacity), Place::page_end) {}

  sparsekit::CachedRows rows() {
    auto* const behind = reinterpret_cast<std::byte*>(rows_.data() + (bytes_ + 3) / 4);
    const bool scaled = sparsekit::dtype_entry(dtype_).scaled;
    return {dtype_, behind - bytes_, scaled ? scales_.data() : nullptr, capacity_};
  }

  /// Number `feature` of a row as a float, which is the exact one but for a rounding of int8 times the scale.
  float number(std::int64_t head, std::int64_t token, std::int64_t feature) {
    const sparsekit::CachedRows stored = rows();
    const std::int64_t row = head * capacity_ + token;
    const std::int64_t at = row * head_dim_ + feature;
    if (dtype_ == sparsekit::DType::float32) return reinterpret_cast<const float*>(stored.rows)[at];
    if (dtype_ == sparsekit::DType::int8) return sparsekit::to_float(int8()[at]) * stored.scales[row];
    return sparsekit::to_float(reinterpret_cast<const sparsekit::BFloat16*>(stored.rows)[at]);
  }

  const std::int8_t* int8() { return reinterpret_cast<const std::int8_t*>(rows().rows); }

 private:
  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

  sparsekit::DType dtype_;
  std::int64_t capacity_;
  std::int64_t head_dim_;
  std::int64_t bytes_;
  PlacedFloats rows_;
  PlacedFloats scales_;
};

/// Keys and values are stored, and the problem is that of what is stored.
class CacheProblem {
 public:
  CacheProblem(const AttentionCase& given, sparsekit::DType dtype) : case_(given), problem_(given, Place::page_end) {
    for (std::int64_t i = 0; i < given.batch; ++i) {
      keys_.push_back(store(dtype, problem_.key() + i * text()));
      values_.push_back(store(dtype, problem_.value() + i * text()));
      caches_.push_back({keys_.back()->rows(), values_.back()->rows(), given.keys});
    }
    for (std::int64_t i = 0; i <= given.batch; ++i) offsets_.push_back(i * given.queries);
  }

  void run() {
    const sparsekit::AttentionCall call = problem_.call();
    sparsekit::cache_attention({call.query.data, call.output.data, case_.heads, case_.key_heads, case_.head_dim,
                                sequences(), caches_.data(), call.scale, case_.window, case_.soft_cap});
  }

  std::vector<float> output() { return problem_.output(); }
  std::string wrong() { return problem_.wrong(); }
  AttentionProblem& problem() { return problem_; }
  sparsekit::Sequences sequences() const { return {offsets_.data(), case_.batch}; }
  std::vector<sparsekit::CachedSequence>& caches() { return caches_; }

 private:
  std::int64_t text() const { return case_.keys * case_.key_heads * case_.head_dim; }

  std::unique_ptr<StoredRows> store(sparsekit::DType dtype, float* floats) const {
    const AttentionCase& c = case_;
    auto stored = std::make_unique<StoredRows>(dtype, c.key_heads, c.keys, c.head_dim);
    sparsekit::store_rows(floats, c.keys, c.key_heads, c.head_dim, stored->rows(), 0);
    for (std::int64_t i = 0; i < text(); ++i) {
      const std::int64_t row = i / c.head_dim;
      floats[i] = stored->number(row % c.key_heads, row / c.key_heads, i % c.head_dim);
    }
    return stored;
  }

  AttentionCase case_;
  AttentionProblem problem_;
  std::vector<std::unique_ptr<StoredRows>> keys_;
  std::vector<std::unique_ptr<StoredRows>> values_;
  std::vector<sparsekit::CachedSequence> caches_;
  std::vector<std::int64_t> offsets_;
};
