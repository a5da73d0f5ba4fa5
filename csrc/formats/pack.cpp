#include "pack.h"

#include <stdexcept>
#include <string>

#include "blocks.h"

namespace sparsekit {
namespace {

constexpr std::int64_t kBlockHeight = 4;

}  // namespace

std::int64_t block_height(const CsrView& csr) {
  return csr.values_size > 0 && full_block_entries(csr, kBlockHeight, kLeastFull) >= 0 ? kBlockHeight : 1;
}

Packing::Packing(const CsrView& csr, DType dtype, std::int64_t height, const float* scales, Family family) : csr_(csr) {
  validate(csr);
  if (dtype_entry(dtype).scaled && csr.dtype != dtype && scales == nullptr) {
    throw std::invalid_argument(std::string(dtype_entry(dtype).name) + " weights need scales, got none");
  }
  if (csr.dtype != dtype && csr.dtype != DType::float32) {
    floats_ = float_values(csr);
    csr_.values = floats_.data();
    csr_.dtype = DType::float32;
    csr_.scales = nullptr;
  }
  if (family == Family::dense || dtype == DType::int4) height = 1;
  if (height == 0) height = block_height(csr_);
  if (height > 1) fill_blocks(height, full_block_entries(csr_, height, 0.0));
  plan_ = plan_pack(csr_, layout_for(dtype, height, family), scales);
}

void Packing::fill_blocks(std::int64_t height, std::int64_t entries) {
  if (entries == csr_.values_size) return;
  full_ = with_full_blocks(csr_, height, entries);
  csr_ = view_of(*full_, csr_.out_features, csr_.in_features, csr_.scales);
}

}  // namespace sparsekit
