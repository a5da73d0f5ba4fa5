// A small random encoder as a compiled model, and as the numbers it was made of.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "layer.h"
#include "model/compiled_file.h"
#include "model/crc32.h"
#include "operators/pooling.h"

using sparsekit::Role;

struct Tensor {
  std::vector<float> dense;  // as the model computes with it
  sparsekit::TensorKind kind;
  std::int64_t rows;
  std::int64_t columns;
  Bytes bytes;
};

/// Sorted as in the file.
using Tensors = std::map<std::pair<std::uint32_t, Role>, Tensor>;

struct AlignedFree {
  void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
};

/// Bytes at a multiple of 64, of exactly this number.
struct AlignedBytes {
  std::unique_ptr<std::byte, AlignedFree> data;
  std::size_t size;

  explicit AlignedBytes(std::size_t bytes)
      : data(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64}))), size(bytes) {
    std::memset(data.get(), 0, bytes);
  }
  AlignedBytes(const AlignedBytes& other) : AlignedBytes(other.size) {
    std::memcpy(data.get(), other.data.get(), size);
  }
};

inline Tensor float_tensor(std::int64_t rows, std::int64_t columns, unsigned seed, float shift = 0.0F) {
  std::vector<float> dense = random_floats(rows * columns, seed);
  for (float& value : dense) value = 0.3F * value + shift;
  const auto* start = reinterpret_cast<const std::byte*>(dense.data());
  Bytes bytes(start, start + dense.size() * sizeof(float));
  return {std::move(dense), sparsekit::TensorKind::floats, rows, columns, std::move(bytes)};
}

inline Tensor floats_of(std::int64_t rows, std::int64_t columns, const std::vector<float>& numbers) {
  Tensor tensor = float_tensor(rows, columns, 1);
  tensor.dense = numbers;
  std::memcpy(tensor.bytes.data(), numbers.data(), tensor.bytes.size());
  return tensor;
}

/// A table in int8: scales of the rows, then values.
inline Tensor int8_table(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Tensor table = float_tensor(rows, columns, seed);
  table.kind = sparsekit::TensorKind::scaled_rows;
  table.bytes.resize(static_cast<std::size_t>(rows * (columns + 4)));
  const float scale = 0.3F / 127;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    const auto value = static_cast<std::int8_t>(std::lround(table.dense[static_cast<std::size_t>(i)] / scale));
    table.bytes[static_cast<std::size_t>(rows * 4 + i)] = static_cast<std::byte>(value);
    table.dense[static_cast<std::size_t>(i)] = static_cast<float>(value) * scale;
  }
  for (std::int64_t r = 0; r < rows; ++r) std::memcpy(&table.bytes[static_cast<std::size_t>(r * 4)], &scale, 4);
  return table;
}

inline Tensor sparse_tensor(std::int64_t rows, std::int64_t columns, unsigned seed, sparsekit::Layout layout) {
  const Layer layer = random_layer(rows, columns, 0.5, seed);
  return {layer.dense, sparsekit::TensorKind::packed, rows, columns, packed(layer.view(), layout)};
}

/// Makes the checksums of tensors that lie in the file right, and then that of the entries.
inline void set_checksums(AlignedBytes& file) {
  sparsekit::CompiledHeader header;
  std::memcpy(&header, file.data.get(), sizeof header);
  if (header.tensors > (file.size - sizeof header) / sizeof(sparsekit::TensorEntry)) return;
  for (std::uint32_t i = 0; i < header.tensors; ++i) {
    std::byte* at = file.data.get() + sizeof header + i * sizeof(sparsekit::TensorEntry);
    sparsekit::TensorEntry entry;
    std::memcpy(&entry, at, sizeof entry);
    if (entry.start > file.size || entry.bytes > file.size - entry.start) continue;
    entry.crc32 = sparsekit::crc32(file.data.get() + entry.start, entry.bytes);
    std::memcpy(at, &entry, sizeof entry);
  }
  header.entries_crc32 =
      sparsekit::crc32(file.data.get() + sizeof header, header.tensors * sizeof(sparsekit::TensorEntry));
  std::memcpy(file.data.get(), &header, sizeof header);
}

/// `Options` of an encoder or a decoder.
template <class Options>
AlignedBytes compiled(const Tensors& tensors, const Options& options) {
  const auto aligned = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  std::vector<sparsekit::TensorEntry> entries;
  std::size_t end = sizeof(sparsekit::CompiledHeader) + tensors.size() * sizeof(sparsekit::TensorEntry);
  for (const auto& [key, tensor] : tensors) {
    const std::uint32_t crc = sparsekit::crc32(tensor.bytes.data(), tensor.bytes.size());
    entries.push_back(
        {key.first, key.second, tensor.kind, crc, tensor.rows, tensor.columns, aligned(end), tensor.bytes.size()});
    end = aligned(end) + tensor.bytes.size();
  }
  AlignedBytes file(aligned(end));
  sparsekit::CompiledHeader header{};
  header.magic = sparsekit::kCompiledMagic;
  header.version = sparsekit::kCompiledVersion;
  header.tensors = static_cast<std::uint32_t>(entries.size());
  header.total_bytes = file.size;
  if constexpr (std::is_same_v<Options, sparsekit::DecoderOptions>) {
    header.kind = sparsekit::ModelKind::decoder;
    header.decoder = options;
  } else {
    header.encoder = options;
  }
  std::memcpy(file.data.get(), &header, sizeof header);
  std::memcpy(file.data.get() + sizeof header, entries.data(), entries.size() * sizeof(entries[0]));
  auto entry = entries.begin();
  for (const auto& [key, tensor] : tensors) {
    std::copy(tensor.bytes.begin(), tensor.bytes.end(), file.data.get() + (entry++)->start);
  }
  set_checksums(file);
  return file;
}

inline constexpr std::int64_t kVocabulary = 50, kFeatures = 24, kHeadDim = 8, kPositions = 20;

inline sparsekit::EncoderOptions small_options() {
  return {2,
          kHeadDim,
          2,
          static_cast<std::int32_t>(sparsekit::Activation::gelu),
          1e-12F,
          0.35F,
          static_cast<std::int32_t>(sparsekit::Pooling::mean),
          1,
          static_cast<std::int32_t>(sparsekit::BlockOrder::post_norm),
          0,
          0};
}

/// Two layers of three and two heads, 40 and 33 hidden features; the second without biases.
inline Tensors small_encoder(sparsekit::Layout layout) {
  constexpr std::uint32_t none = sparsekit::kNoLayer;
  Tensors all;
  all[{none, Role::word_embeddings}] = int8_table(kVocabulary, kFeatures, 1);
  all[{none, Role::position_embeddings}] = float_tensor(kPositions, kFeatures, 2);
  all[{none, Role::type_embeddings}] = float_tensor(2, kFeatures, 3);
  all[{none, Role::embedding_norm_weight}] = float_tensor(kFeatures, 1, 4, 1.0F);
  all[{none, Role::embedding_norm_bias}] = float_tensor(kFeatures, 1, 5);
  for (std::uint32_t i = 0; i < 2; ++i) {
    const unsigned seed = 10 + 20 * i;
    const std::int64_t attention = i == 0 ? 24 : 16;
    const std::int64_t hidden = i == 0 ? 40 : 33;
    const auto linear = [&](Role weight, Role bias, std::int64_t rows, std::int64_t columns, unsigned number) {
      all[{i, weight}] = sparse_tensor(rows, columns, seed + number, layout);
      if (i == 0) all[{i, bias}] = float_tensor(rows, 1, seed + number + 1);
    };
    linear(Role::query, Role::query_bias, attention, kFeatures, 0);
    linear(Role::key, Role::key_bias, attention, kFeatures, 2);
    linear(Role::value, Role::value_bias, attention, kFeatures, 4);
    linear(Role::attention_output, Role::attention_output_bias, kFeatures, attention, 6);
    linear(Role::up, Role::up_bias, hidden, kFeatures, 8);
    linear(Role::down, Role::down_bias, kFeatures, hidden, 10);
    all[{i, Role::attention_norm_weight}] = float_tensor(kFeatures, 1, seed + 12, 1.0F);
    all[{i, Role::attention_norm_bias}] = float_tensor(kFeatures, 1, seed + 13);
    all[{i, Role::output_norm_weight}] = float_tensor(kFeatures, 1, seed + 14, 1.0F);
    all[{i, Role::output_norm_bias}] = float_tensor(kFeatures, 1, seed + 15);
  }
  return all;
}
