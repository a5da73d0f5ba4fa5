// Pack a CSR: validate it, detect its blocks, fill them, write the buffer.
#pragma once

#include <optional>

#include "packed.h"

namespace sparsekit {

/// Fraction of the places in blocks that must be entries for automatic detection; a few zero weights do not prevent it.
inline constexpr double kLeastFull = 0.95;

/// Block height that kernels use for a validated CSR: 4 if at least `kLeastFull` of the places in its 4x1 blocks are
/// entries, else 1.
std::int64_t block_height(const CsrView& csr);

class Packing {
 public:
  /// Values of another type than `dtype` are converted. `height`: rows of a block, 0 for those that the weight has;
  /// zeros are stored where blocks are not full. `scales`: for int8, [out_features], and int4, [out_features, groups];
  /// those of values of the type stay. `family`: of the layout, where there are two. Throws std::invalid_argument for a
  /// malformed CSR, and as `plan_pack`.
  Packing(const CsrView& csr, DType dtype, std::int64_t height, const float* scales, Family family);
  Packing(const Packing&) = delete;
  Packing& operator=(const Packing&) = delete;

  std::size_t bytes() const { return plan_.header.total_bytes; }

  /// Writes every byte of `buffer`: see `write_packed`.
  void write(std::byte* buffer) const { write_packed(csr_, plan_, buffer); }

 private:
  void fill_blocks(std::int64_t height, std::int64_t entries);

  CsrView csr_;
  std::vector<float> floats_;         // of values of another type
  std::optional<AnyCsrArrays> full_;  // where blocks were not full
  PackPlan plan_;
};

}  // namespace sparsekit
