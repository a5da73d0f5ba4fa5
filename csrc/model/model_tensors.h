// Tensors of a compiled model as operands of operators, checked against the expected sizes.
#pragma once

#include <optional>
#include <string>

#include "../operators/embedding.h"
#include "../operators/rotary.h"
#include "compiled_file.h"
#include "weights.h"

namespace sparsekit {

/// Stands for any size.
inline constexpr std::int64_t kAnySize = -1;

/// Throws std::invalid_argument: `what` is wrong with a model whose bytes are as they were written.
[[noreturn]] void refuse_model(const std::string& what);

std::string tensor_name(std::uint32_t layer, Role role);

/// Every function throws std::invalid_argument if a tensor is missing or has another storage or shape.
class ModelTensors {
 public:
  /// `file` must stay.
  explicit ModelTensors(const CompiledFile& file) : file_(file) {}

  const CompiledFile& file() const { return file_; }
  bool has(std::uint32_t layer, Role role) const { return file_.find(layer, role) != nullptr; }
  const TensorEntry& entry(std::uint32_t layer, Role role) const;
  const float* floats(const TensorEntry& entry) const { return reinterpret_cast<const float*>(file_.data(entry)); }

  /// [rows, features]: floats or scaled rows.
  EmbeddingTable table(Role role, std::int64_t features) const;
  /// Without rows where the file has none.
  EmbeddingTable optional_table(Role role, std::int64_t features) const;
  const float* vector(std::uint32_t layer, Role role, std::int64_t size) const;
  NormWeights norm(std::uint32_t layer, Role weight, Role bias, std::int64_t features) const;
  LinearWeights linear(std::uint32_t layer, Role weight, Role bias, std::int64_t out_features,
                       std::int64_t in_features) const;
  std::optional<LinearWeights> optional_linear(Role weight, Role bias, std::int64_t in_features) const;
  /// With an even number of columns, up to `head_dim`; without rows where the file has none.
  RotaryTable rotary(Role role, std::int64_t head_dim) const;
  /// Of one of `layers` layers; 0 where the file has none.
  std::int64_t window(std::uint32_t layer, std::int32_t layers) const;

 private:
  const CompiledFile& file_;
};

}  // namespace sparsekit
