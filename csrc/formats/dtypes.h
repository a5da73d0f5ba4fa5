// The table of stored weight types.
#pragma once

#include <cstdint>
#include <string>

#include "../kernels/packed_weight.h"

namespace sparsekit {

enum class DType : std::int32_t { float32, bfloat16, float16, int8, int4 };

struct DTypeEntry {
  DType dtype;
  const char* name;    // as torch has it
  const char* numpy;   // the array that holds it: numpy has no bfloat16 and holds the bits
  std::int64_t bytes;  // of a value there
  bool scaled;         // whether values are in units of a scale: of their row, or of their group
};

inline constexpr DTypeEntry kDTypes[] = {{DType::float32, "float32", "float32", 4, false},
                                         {DType::bfloat16, "bfloat16", "uint16", 2, false},
                                         {DType::float16, "float16", "float16", 2, false},
                                         {DType::int8, "int8", "int8", 1, true},
                                         {DType::int4, "int4", "int8", 1, true}};

constexpr const DTypeEntry& dtype_entry(DType dtype) { return kDTypes[static_cast<int>(dtype)]; }

/// Throws std::invalid_argument for a name that is not in the table.
DType dtype_named(const std::string& name);

template <class Value>
inline constexpr DType kDType = DType::float32;
template <>
inline constexpr DType kDType<BFloat16> = DType::bfloat16;
template <>
inline constexpr DType kDType<Float16> = DType::float16;
template <>
inline constexpr DType kDType<std::int8_t> = DType::int8;
template <>
inline constexpr DType kDType<Int4> = DType::int4;

}  // namespace sparsekit
