// What comes from outside, as any bytes: CSR arrays, and buffers that say they are packed weights.
//
// Arrays that `validate` lets pass are packed in every layout and must come back: entry by entry, values as near as
// their type holds them. Packed weights of which bytes were changed are refused by `check_packed`, or kernels run on
// them and they can be unpacked. Everything else must end in std::invalid_argument, and nothing may read or write
// beyond what is there (libFuzzer runs this with the address and undefined behavior sanitizers).
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "formats/blocks.h"
#include "formats/check_packed.h"
#include "formats/csr.h"
#include "formats/packed.h"
#include "formats/values.h"
#include "operators/sparse_product.h"

using namespace sparsekit;

extern "C" const KernelTable sparsekit_kernels_scalar;
extern "C" const KernelTable sparsekit_kernels_avx2;

namespace {

/// Larger packed weights are not made: a few bytes can describe a huge empty matrix.
constexpr std::int64_t kMostCells = 1 << 12;

struct Matrix {
  CsrArrays arrays;
  std::int64_t out_features;
  std::int64_t in_features;

  CsrView view() const {
    return {arrays.crow_indices.data(),
            static_cast<std::int64_t>(arrays.crow_indices.size()),
            arrays.col_indices.data(),
            static_cast<std::int64_t>(arrays.col_indices.size()),
            arrays.values.data(),
            static_cast<std::int64_t>(arrays.values.size()),
            out_features,
            in_features};
  }
};

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// As many bytes as there are; the rest of `to` stays as it is.
void take(FuzzedDataProvider& data, void* to, std::size_t bytes) {
  if (bytes > 0 && data.remaining_bytes() > 0) data.ConsumeData(to, bytes);
}

template <class T>
std::vector<T> numbers(FuzzedDataProvider& data, std::size_t most) {
  std::vector<T> found(data.ConsumeIntegralInRange<std::size_t>(0, most));
  take(data, found.data(), found.size() * sizeof(T));
  return found;
}

/// Arrays of any lengths and contents.
Matrix any_arrays(FuzzedDataProvider& data) {
  Matrix matrix;
  matrix.out_features =
      data.ConsumeBool() ? data.ConsumeIntegral<std::int64_t>() : data.ConsumeIntegral<std::uint8_t>();
  matrix.in_features = data.ConsumeBool() ? data.ConsumeIntegral<std::int64_t>() : data.ConsumeIntegral<std::uint8_t>();
  matrix.arrays.crow_indices = numbers<std::int64_t>(data, 16);
  matrix.arrays.col_indices = numbers<std::int32_t>(data, 16);
  matrix.arrays.values = numbers<float>(data, 16);
  return matrix;
}

/// A well-formed matrix: of every row, how far each column is from the one before it.
Matrix well_formed(FuzzedDataProvider& data) {
  Matrix matrix;
  matrix.out_features = data.ConsumeIntegralInRange<std::int64_t>(0, 200);
  matrix.in_features = data.ConsumeIntegralInRange<std::int64_t>(0, 700);
  const std::int64_t widest = data.ConsumeIntegralInRange<std::int64_t>(1, 255);
  matrix.arrays.crow_indices.push_back(0);
  for (std::int64_t row = 0; row < matrix.out_features; ++row) {
    std::int64_t column = -1;
    while (data.remaining_bytes() > 0) {
      column += data.ConsumeIntegralInRange<std::int64_t>(1, widest);
      if (column >= matrix.in_features) break;
      matrix.arrays.col_indices.push_back(static_cast<std::int32_t>(column));
      float value = 0.0F;
      take(data, &value, sizeof value);
      matrix.arrays.values.push_back(value);
    }
    matrix.arrays.crow_indices.push_back(static_cast<std::int64_t>(matrix.arrays.values.size()));
  }
  return matrix;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

/// What a layout holds for a value.
float stored(const LayoutEntry& layout, float value, float scale) {
  if (layout.scaled) return static_cast<float>(quantize(value, scale)) * scale;
  if (layout.dtype == DType::float32) return value;
  return layout.dtype == DType::bfloat16 ? to_float(to_bfloat16(value)) : to_float(to_float16(value));
}

/// A scale for every row, such as `quantization.py` computes.
std::vector<float> scales_of(const CsrView& csr) {
  std::vector<float> scales(static_cast<std::size_t>(csr.out_features), 1.0F);
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    float largest = 0.0F;
    for (std::int64_t i = csr.crow_indices[row]; i < csr.crow_indices[row + 1]; ++i) {
      largest = std::max(largest, std::fabs(csr.values_as<float>()[i]));
    }
    if (largest > 0.0F) scales[static_cast<std::size_t>(row)] = largest / 127.0F;
  }
  return scales;
}

void packs_and_comes_back(const Matrix& matrix, const LayoutEntry& layout) {
  const CsrView csr = matrix.view();
  const std::vector<float> scales = scales_of(csr);
  PackPlan plan;
  std::vector<std::uint64_t> buffer;  // aligned as packed weights are
  try {
    plan = plan_pack(csr, layout.layout, scales.data());
    buffer.resize(plan.header.total_bytes / sizeof(buffer[0]));
    write_packed(csr, plan, reinterpret_cast<std::byte*>(buffer.data()));
  } catch (const std::invalid_argument&) {
    require(layout.value_bytes < 4, "a layout that holds any float refused one");
    return;
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(buffer.data());
  const PackedHeader& header = packed_header(bytes, buffer.size() * sizeof(buffer[0]));
  const AnyCsrArrays arrays = layout.unpack(packed_view(header), header.nnz);
  const CsrView back = view_of(arrays, csr.out_features, csr.in_features, packed_view(header).scales);
  require(std::equal(back.crow_indices, back.crow_indices + back.crow_size, csr.crow_indices,
                     csr.crow_indices + csr.crow_size),
          "rows came back differently");
  require(
      std::equal(back.col_indices, back.col_indices + back.col_size, csr.col_indices, csr.col_indices + csr.col_size),
      "columns came back differently");
  const PackPlan same_plan = plan_pack(back, layout.layout);
  std::vector<std::uint64_t> same_buffer(same_plan.header.total_bytes / sizeof(buffer[0]));
  write_packed(back, same_plan, reinterpret_cast<std::byte*>(same_buffer.data()));
  require(same_buffer == buffer, "what came back packs to other bytes");
  const std::vector<float> values = float_values(back);
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    for (std::int64_t i = csr.crow_indices[row]; i < csr.crow_indices[row + 1]; ++i) {
      const float expected = stored(layout, csr.values_as<float>()[i], scales[static_cast<std::size_t>(row)]);
      require(same_bits(values[static_cast<std::size_t>(i)], expected), "a value came back differently");
    }
  }
}

/// The matrix with zeros stored where blocks are not full: the same one when made dense.
Matrix with_blocks(const Matrix& matrix, std::int64_t height) {
  const CsrView csr = matrix.view();
  const std::int64_t entries = full_block_entries(csr, height, 0.0);
  Matrix full{std::get<CsrArrays>(with_full_blocks(csr, height, entries)), matrix.out_features, matrix.in_features};
  validate(full.view());
  require(static_cast<std::int64_t>(full.arrays.values.size()) == entries, "blocks have other entries than counted");
  const auto size = static_cast<std::size_t>(checked_size(csr.out_features, csr.in_features));
  std::vector<float> dense(size);
  std::vector<float> other(size);
  csr_to_dense(csr, dense.data());
  csr_to_dense(full.view(), other.data());
  require(std::equal(dense.begin(), dense.end(), other.begin(), same_bits), "full blocks changed the matrix");
  return full;
}

void check_matrix(const Matrix& matrix) {
  try {
    validate(matrix.view());
  } catch (const std::invalid_argument&) {
    return;
  }
  const PackedShape shape = shape_for(layout_entry(Layout::sell_f32), matrix.out_features, matrix.in_features);
  if (shape.column_blocks * shape.slices > kMostCells) return;
  const Matrix full = with_blocks(matrix, 4);
  // Dense layouts give back no zeros, nor what became one in a smaller type.
  const auto& values = matrix.arrays.values;
  const bool zeros = std::find(values.begin(), values.end(), 0.0F) != values.end();
  for (const LayoutEntry& entry : layout_entries()) {
    if (entry.family == Family::dense && (zeros || entry.dtype != DType::float32)) continue;
    packs_and_comes_back(entry.height == 1 ? matrix : full, entry);
  }
}

void try_header(const std::byte* buffer, std::size_t bytes) {
  try {
    const PackedHeader& header = packed_header(buffer, bytes);
    require(header.total_bytes == bytes && header.columns_start <= bytes, "a header was let pass that lies");
    packed_view(header);
  } catch (const std::invalid_argument&) {
  }
}

const LayoutEntry& some_layout(FuzzedDataProvider& data) {
  const auto layouts = layout_entries();
  return layouts[data.ConsumeIntegralInRange<std::size_t>(0, layouts.size() - 1)];
}

/// Two row groups of `height` rows, of which the first has one full block.
Matrix one_group(std::int64_t height) {
  std::vector<float> dense(static_cast<std::size_t>(2 * height * 5));
  for (std::int64_t row = 0; row < height; ++row) dense[static_cast<std::size_t>(row * 5 + 3)] = 1.0F;
  return {csr_from_dense(dense.data(), 2 * height, 5), 2 * height, 5};
}

/// Scales of 1, as many as a layout has.
std::vector<float> ones_for(const LayoutEntry& layout, const Matrix& matrix) {
  const std::int64_t each = layout.grouped() ? groups_of(matrix.in_features) : 1;
  return std::vector<float>(static_cast<std::size_t>(matrix.out_features * each), 1.0F);
}

/// A buffer that is nothing, or the header of a good one with some of its fields changed.
void check_header(FuzzedDataProvider& data) {
  std::vector<std::uint64_t> buffer(data.ConsumeIntegralInRange<std::size_t>(0, 64));
  if (data.ConsumeBool()) {
    const LayoutEntry& layout = some_layout(data);
    const Matrix matrix = one_group(layout.height);
    const PackPlan plan = plan_pack(matrix.view(), layout.layout, ones_for(layout, matrix).data());
    buffer.assign(plan.header.total_bytes / sizeof(buffer[0]), 0);
    write_packed(matrix.view(), plan, reinterpret_cast<std::byte*>(buffer.data()));
    constexpr std::size_t kFields = sizeof(PackedHeader) / sizeof(buffer[0]);
    while (data.remaining_bytes() > 0) {
      buffer[data.ConsumeIntegralInRange<std::size_t>(0, kFields - 1)] = data.ConsumeIntegral<std::uint64_t>();
    }
  } else {
    take(data, buffer.data(), buffer.size() * sizeof(buffer[0]));
  }
  try_header(reinterpret_cast<const std::byte*>(buffer.data()), buffer.size() * sizeof(buffer[0]));
}

/// A weight of up to 200 row groups, and the bytes that it is packed in.
std::vector<std::uint64_t> some_packed(FuzzedDataProvider& data) {
  const LayoutEntry& layout = some_layout(data);
  const std::int64_t rows = data.ConsumeIntegralInRange<std::int64_t>(0, 200) * layout.height;
  const std::int64_t columns = data.ConsumeIntegralInRange<std::int64_t>(0, 600);
  const std::int64_t step = data.ConsumeIntegralInRange<std::int64_t>(1, 255);
  std::vector<float> dense(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows / layout.height * columns; i += 1 + i * i % step) {
    for (std::int64_t r = 0; r < layout.height; ++r) {
      dense[static_cast<std::size_t>((i / columns * layout.height + r) * columns + i % columns)] = 1.0F;
    }
  }
  const Matrix matrix{csr_from_dense(dense.data(), rows, columns), rows, columns};
  const PackPlan plan = plan_pack(matrix.view(), layout.layout, ones_for(layout, matrix).data());
  std::vector<std::uint64_t> buffer(plan.header.total_bytes / sizeof(std::uint64_t));
  write_packed(matrix.view(), plan, reinterpret_cast<std::byte*>(buffer.data()));
  return buffer;
}

void run_kernels(const PackedHeader& header, Direction direction, std::int64_t tokens, const KernelTable& table) {
  const bool forward = direction == Direction::forward;
  const std::int64_t inputs = forward ? header.in_features : header.out_features;
  const std::int64_t outputs = forward ? header.out_features : header.in_features;
  const std::vector<float> input(static_cast<std::size_t>(tokens * inputs), 0.5F);
  std::vector<float> output(static_cast<std::size_t>(tokens * outputs));
  run({{packed_view(header),
        header.layout,
        header.entries,
        direction,
        {input.data(), inputs, tokens},
        {output.data(), outputs, tokens, nullptr, Activation::none}}},
      table);
}

/// A good packed weight with some of its bytes changed.
void check_body(FuzzedDataProvider& data) {
  std::vector<std::uint64_t> buffer = some_packed(data);
  const std::size_t size = buffer.size() * sizeof(buffer[0]);
  auto* bytes = reinterpret_cast<std::byte*>(buffer.data());
  while (data.remaining_bytes() > 0) {
    const auto at = data.ConsumeIntegralInRange<std::size_t>(0, size - 1);
    bytes[at] = static_cast<std::byte>(data.ConsumeIntegral<std::uint8_t>());
  }
  try {
    check_packed(bytes, size);
  } catch (const std::invalid_argument&) {
    return;
  }
  const PackedHeader& header = packed_header(bytes, size);
  const LayoutEntry& layout = layout_entry(header.layout);
  layout.unpack(packed_view(header), header.nnz);
  for (const KernelTable* table : {&sparsekit_kernels_scalar, &sparsekit_kernels_avx2}) {
    if (table == &sparsekit_kernels_avx2 && __builtin_cpu_supports("avx2") == 0) continue;
    for (const std::int64_t tokens : {1, 2, 9, 33}) run_kernels(header, Direction::forward, tokens, *table);
    if (layout.has_gradient()) run_kernels(header, Direction::transposed, 9, *table);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0) return 0;
  FuzzedDataProvider data(bytes, size);
  switch (data.ConsumeIntegralInRange<int>(0, 3)) {
    case 0:
      check_matrix(any_arrays(data));
      break;
    case 1:
      check_matrix(well_formed(data));
      break;
    case 2:
      check_header(data);
      break;
    default:
      check_body(data);
  }
  return 0;
}
