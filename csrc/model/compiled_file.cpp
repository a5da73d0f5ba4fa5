#include "compiled_file.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <tuple>

#include "../formats/check_packed.h"
#include "../formats/packed.h"
#include "crc32.h"

namespace sparsekit {
namespace {

constexpr std::uint64_t kAlignment = 64;
/// Largest model, in bytes, whose tensor checksums are verified, which takes about a second per GB.
constexpr std::size_t kMostSummed = std::size_t{256} << 20;
/// Of rows and columns: their product, in bytes, is far from 2^63.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 28;

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("the compiled model is damaged: " + what + "; compile it again with compile_model()");
}

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

auto key_of(const TensorEntry& entry) { return std::tuple(entry.layer, entry.role); }

std::string name_of(const TensorEntry& entry) {
  return "tensor " + std::to_string(static_cast<std::uint32_t>(entry.role)) +
         (entry.layer == kNoLayer ? "" : " of layer " + std::to_string(entry.layer));
}

const CompiledHeader& checked_header(const std::byte* data, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(data) % kAlignment != 0) {
    throw std::invalid_argument("a compiled model must lie at a multiple of 64 bytes; map its file, or copy it");
  }
  if (bytes < sizeof(CompiledHeader)) {
    throw std::invalid_argument("a compiled model has at least " + std::to_string(sizeof(CompiledHeader)) +
                                " bytes, got " + std::to_string(bytes));
  }
  const auto& header = *reinterpret_cast<const CompiledHeader*>(data);
  if (header.magic != kCompiledMagic) {
    throw std::invalid_argument("not a compiled model; make one with compile_model()");
  }
  if (header.version != kCompiledVersion) {
    throw std::invalid_argument("expected a compiled model of version " + std::to_string(kCompiledVersion) + ", got " +
                                std::to_string(header.version) + "; compile it again with compile_model()");
  }
  if (header.total_bytes != bytes) {
    refuse("it says it has " + std::to_string(header.total_bytes) + " bytes, got " + std::to_string(bytes));
  }
  if (header.tensors > (bytes - sizeof(CompiledHeader)) / sizeof(TensorEntry)) refuse("more tensors than fit");
  const auto zero = [](std::uint32_t value) { return value == 0; };
  if (!std::ranges::all_of(header.reserved, zero)) refuse("a reserved field is not 0");
  if (header.kind > ModelKind::decoder) refuse("a model of an unknown kind");
  return header;
}

std::uint64_t bytes_of(const TensorEntry& entry) {
  const auto size = static_cast<std::uint64_t>(entry.rows * entry.columns);
  return entry.kind == TensorKind::floats ? size * sizeof(float)
                                          : size + static_cast<std::uint64_t>(entry.rows) * sizeof(float);
}

void check_packed_tensor(const TensorEntry& entry, const std::byte* data) {
  check_packed(data, entry.bytes);
  const PackedHeader& header = packed_header(data, entry.bytes);
  if (header.out_features != entry.rows || header.in_features != entry.columns) {
    refuse(name_of(entry) + " has another shape than its packed weight");
  }
}

/// Scales of int8 rows are finite and no value is -128, as in packed weights.
void check_scaled_rows(const TensorEntry& entry, const std::byte* data) {
  const auto* scales = reinterpret_cast<const float*>(data);
  const auto* values = reinterpret_cast<const std::int8_t*>(scales + entry.rows);
  const auto good = [](float scale) { return scale > 0.0F && std::isfinite(scale); };
  if (!std::all_of(scales, scales + entry.rows, good)) refuse("scales of " + name_of(entry) + " must be positive");
  if (std::find(values, values + entry.rows * entry.columns, -128) != values + entry.rows * entry.columns) {
    refuse("int8 values of " + name_of(entry) + " must be from -127 to 127, got -128");
  }
}

void check_tensor(const TensorEntry& entry, const std::byte* data) {
  if (entry.rows < 0 || entry.rows > kMaxSize || entry.columns < 1 || entry.columns > kMaxSize) {
    refuse(name_of(entry) + " has impossible sizes");
  }
  switch (entry.kind) {
    case TensorKind::packed:
      return check_packed_tensor(entry, data);
    case TensorKind::floats:
    case TensorKind::scaled_rows:
      if (entry.bytes != bytes_of(entry)) refuse(name_of(entry) + " has another number of bytes than its shape");
      if (entry.kind == TensorKind::scaled_rows) check_scaled_rows(entry, data);
      return;
  }
  refuse(name_of(entry) + " is stored in an unknown way");
}

}  // namespace

CompiledFile::CompiledFile(const std::byte* data, std::size_t bytes)
    : data_(data),
      header_(&checked_header(data, bytes)),
      entries_(reinterpret_cast<const TensorEntry*>(data + sizeof(CompiledHeader)), header_->tensors) {
  if (crc32(data + sizeof(CompiledHeader), entries_.size_bytes()) != header_->entries_crc32) {
    refuse("its list of tensors has another checksum");
  }
  std::uint64_t end = sizeof(CompiledHeader) + entries_.size_bytes();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const TensorEntry& entry = entries_[i];
    if (i > 0 && key_of(entries_[i - 1]) >= key_of(entry)) refuse("its tensors are not sorted by layer and role");
    if (entry.start != aligned(end) || entry.start > bytes || entry.bytes > bytes - entry.start) {
      refuse(name_of(entry) + " does not lie behind the one before it");
    }
    if (bytes <= kMostSummed && crc32(data + entry.start, entry.bytes) != entry.crc32) {
      refuse(name_of(entry) + " has another checksum");
    }
    check_tensor(entry, data + entry.start);
    end = entry.start + entry.bytes;
  }
  if (aligned(end) != bytes) refuse("bytes behind its last tensor");
}

const EncoderOptions& CompiledFile::encoder() const {
  if (header_->kind != ModelKind::encoder) {
    throw std::invalid_argument("the compiled model is no encoder; open a language model with Generator");
  }
  return header_->encoder;
}

const DecoderOptions& CompiledFile::decoder() const {
  if (header_->kind != ModelKind::decoder) {
    throw std::invalid_argument("the compiled model is no decoder; open an encoder with Encoder");
  }
  return header_->decoder;
}

const TensorEntry* CompiledFile::find(std::uint32_t layer, Role role) const {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), std::tuple(layer, role),
                                      [](const TensorEntry& entry, const auto& key) { return key_of(entry) < key; });
  return found != entries_.end() && key_of(*found) == std::tuple(layer, role) ? &*found : nullptr;
}

}  // namespace sparsekit
