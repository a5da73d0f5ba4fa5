// Packing a CSR in one go: blocks found and filled, and values of every type that come back as they were.
#include "check.h"
#include "formats/pack.h"
#include "formats/values.h"
#include "layer.h"

using namespace sparsekit;

namespace {

Bytes packed_in_one_go(const CsrView& csr, DType dtype, std::int64_t height, const float* scales = nullptr,
                       Family family = Family::sell) {
  const Packing packing(csr, dtype, height, scales, family);
  Bytes buffer(packing.bytes(), std::byte{0xFF});
  packing.write(buffer.data());
  return buffer;
}

Layout layout_of(const Bytes& packed) { return packed_header(packed.data(), packed.size()).layout; }

/// The layer's structure with other values.
template <class Value>
AnyCsrArrays with_values_of(const Layer& layer, std::vector<Value> values) {
  return CsrArraysOf<Value>{layer.csr.crow_indices, layer.csr.col_indices, std::move(values)};
}

bool same(const CsrView& a, const CsrView& b) {
  const auto bytes = static_cast<std::size_t>(a.values_size * dtype_entry(a.dtype).bytes);
  return a.dtype == b.dtype && a.crow_size == b.crow_size && a.values_size == b.values_size &&
         std::equal(a.crow_indices, a.crow_indices + a.crow_size, b.crow_indices) &&
         std::equal(a.col_indices, a.col_indices + a.col_size, b.col_indices) &&
         (bytes == 0 || std::memcmp(a.values, b.values, bytes) == 0);
}

/// Packed, and back: the same bytes.
void check_round_trip(const CsrView& csr, std::int64_t height, Family family = Family::sell) {
  const Bytes packed = packed_in_one_go(csr, csr.dtype, height, nullptr, family);
  const AnyCsrArrays back = unpacked(packed);
  const PackedWeight weight = packed_view(packed_header(packed.data(), packed.size()));
  CHECK_CASE(same(csr, view_of(back, csr.out_features, csr.in_features)), dtype_entry(csr.dtype).name);
  for (std::int64_t r = 0; csr.scales != nullptr && r < csr.out_features; ++r) {
    CHECK(weight.scales[r] == csr.scales[r]);
  }
}

void values_come_back_as_they_were() {
  for (const std::int64_t height : {1, 4}) {
    for (const std::int64_t out : {1, 17, 70}) {
      const Layer layer = random_layer(out, 300, 0.7, 1, height);
      const auto nnz = layer.csr.values.size();
      std::vector<BFloat16> brain(nnz);
      std::vector<Float16> half(nnz);
      std::vector<std::int8_t> bytes(nnz);
      for (std::size_t i = 0; i < nnz; ++i) {
        brain[i] = to_bfloat16(layer.csr.values[i]);
        half[i] = to_float16(layer.csr.values[i]);
        bytes[i] = static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);  // zeros and both ends among them
      }
      std::vector<float> scales(static_cast<std::size_t>(out));
      for (std::size_t r = 0; r < scales.size(); ++r) scales[r] = 0.1F / static_cast<float>(r + 3);
      for (const Family family : {Family::sell, Family::csr, Family::bitmask}) {
        check_round_trip(layer.view(), height, family);
        check_round_trip(view_of(with_values_of(layer, brain), out, 300), height, family);
        check_round_trip(view_of(with_values_of(layer, half), out, 300), height, family);
      }
      check_round_trip(view_of(with_values_of(layer, bytes), out, 300, scales.data()), height);
    }
  }
}

void other_types_are_converted() {
  const Layer layer = random_layer(33, 200, 0.5);
  const std::vector<float> scales(33, 1.0F / 127);
  const Bytes int8 = packed_in_one_go(layer.view(), DType::int8, 1, scales.data());
  const AnyCsrArrays bytes = unpacked(int8);
  const CsrView csr = view_of(bytes, 33, 200, scales.data());
  CHECK(csr.dtype == DType::int8);
  const Bytes floats = packed_in_one_go(csr, DType::float32, 1);
  CHECK(layout_of(floats) == Layout::sell_f32);
  CHECK(same_bits(unpacked_floats(floats).values, unpacked_floats(int8).values));
  CHECK(packed_in_one_go(csr, DType::int8, 1) == int8);
  std::vector<float> dense(33 * 200);
  std::vector<float> expected(33 * 200);
  csr_to_dense(csr, dense.data());
  const Layer exact = held(layer, int8);
  csr_to_dense(exact.view(), expected.data());
  CHECK(same_bits(dense, expected));
}

void blocks_are_found_and_filled() {
  const Layer blocks = random_layer(72, 300, 0.8, 1, 4);
  CHECK(layout_of(packed_in_one_go(blocks.view(), DType::float32, 0)) == Layout::sell_4x1_f32);
  CHECK(layout_of(packed_in_one_go(blocks.view(), DType::float32, 1)) == Layout::sell_f32);
  CHECK(layout_of(packed_in_one_go(blocks.view(), DType::float16, 0, nullptr, Family::csr)) == Layout::csr_4x1_fp16);
  const Layer none = random_layer(72, 300, 0.8);
  CHECK(layout_of(packed_in_one_go(none.view(), DType::bfloat16, 0)) == Layout::sell_bf16);
  const Bytes filled = packed_in_one_go(none.view(), DType::float32, 4);
  const CsrArrays full = unpacked_floats(filled);
  CHECK(full.values.size() > none.csr.values.size());
  std::vector<float> dense(none.dense.size());
  csr_to_dense(view_of(full, 72, 300), dense.data());
  CHECK(same_bits(dense, none.dense));
  const std::vector<float> scales(72, 1.0F / 127);
  const auto bytes = [&](Family family) {
    return layout_of(packed_in_one_go(none.view(), DType::int8, 4, scales.data(), family));
  };
  CHECK(bytes(Family::sell) == Layout::sell_4x1_s8);
  CHECK(bytes(Family::csr) == Layout::csr_4x1_s8);
  CHECK(bytes(Family::bitmask) == Layout::csr_4x1_s8);
  CHECK(bytes(Family::dense) == Layout::dense_s8);
}

void refuses() {
  const Layer layer = random_layer(3, 5, 0.0);
  CHECK_THROWS(family_named("ell"), "layout must be one of 'sell', 'csr', 'bitmask', 'dense', got 'ell'");
  CHECK_THROWS(packed_in_one_go(layer.view(), DType::int8, 1), "int8 weights need scales");
  CHECK_THROWS(packed_in_one_go(layer.view(), DType::float32, 2), "no layout has float32 values in blocks of 2x1");
  const AnyCsrArrays bytes = with_values_of(layer, std::vector<std::int8_t>(15, std::int8_t{-127}));
  std::vector<float> scales(3, 1.0F);
  validate(view_of(bytes, 3, 5, scales.data()));
  CHECK_THROWS(validate(view_of(bytes, 3, 5)), "scales must have shape [out_features] = [3], got [0]");
  scales[1] = 0.0F;
  CHECK_THROWS(validate(view_of(bytes, 3, 5, scales.data())),
               "positive and finite, as 127 times them, got 0.000000 in row 1");
  scales[1] = 1.0F;
  const AnyCsrArrays low = with_values_of(layer, std::vector<std::int8_t>(15, std::int8_t{-128}));
  CHECK_THROWS(validate(view_of(low, 3, 5, scales.data())), "from -127 to 127, got -128");
  CHECK_THROWS(dtype_named("int2"), "dtype must be one of float32, bfloat16, float16, int8, int4, got 'int2'");
}

}  // namespace

int main() {
  values_come_back_as_they_were();
  other_types_are_converted();
  blocks_are_found_and_filled();
  refuses();
  return check::result();
}
