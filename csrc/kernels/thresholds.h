// Numbers of tokens from which kernels pay, set by each isa/<isa>.h and read by table.cpp.
#pragma once

#include <cstdint>

namespace sparsekit {

/// More tokens than any call has: disables a kernel.
inline constexpr std::int64_t kNever = INT64_MAX;

/// More than any weight has.
inline constexpr double kNoSparsity = 2.0;

/// Processor vendor, since instruction timings differ.
enum class Vendor { others, amd };

/// Tokens from which a kernel is preferred, by the processor's vendor.
struct MinTokens {
  std::int64_t others;
  std::int64_t amd;

  constexpr std::int64_t of(Vendor vendor) const { return vendor == Vendor::amd ? amd : others; }
};

/// The same for every vendor.
constexpr MinTokens min_tokens(std::int64_t tokens) { return {.others = tokens, .amd = tokens}; }

/// Sparsity from which weights are packed as CSR in column blocks, those of int8 apart.
struct LayoutThresholds {
  double min_csr_sparsity = kNoSparsity;
  double min_csr_sparsity_s8 = kNoSparsity;
};

/// Those of instruction sets stand here and not in isa/<isa>.h because any machine packs for any other.
inline constexpr LayoutThresholds kAvx2Layouts{.min_csr_sparsity = 0.0, .min_csr_sparsity_s8 = 0.75};
inline constexpr LayoutThresholds kAvxVnniLayouts{.min_csr_sparsity = 0.0};
inline constexpr LayoutThresholds kAvx512Layouts{};
inline constexpr LayoutThresholds kNeonLayouts{};

/// Measured with layers of 384x384 to 11008x4096 at 50% to 95% sparsity.
struct Thresholds {
  /// Most tokens that SpMV of float values computes faster than a tile of eight, padding and all.
  std::int64_t max_spmv_tokens = 1;
  /// To permute the bytes of a whole tile of tokens, instead of eight at a time.
  MinTokens min_permuted_tile = min_tokens(kNever);
  /// To interleave the bytes of a tile of tokens; to permute them or to look them up is faster below.
  MinTokens min_interleaved = min_tokens(kNever);
  LayoutThresholds layouts = {};
};

}  // namespace sparsekit
