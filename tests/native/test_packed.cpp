// Packed weights: CSR -> packed -> CSR, and buffers that are no packed weight.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "check.h"
#include "formats/blocks.h"
#include "layer.h"

using namespace sparsekit;

namespace {

void check_round_trip(const Layer& layer, Layout layout = Layout::sell_f32) {
  const Bytes buffer = packed(layer.view(), layout);
  const PackedHeader& header = packed_header(buffer.data(), buffer.size());
  const std::string name = std::to_string(layer.out_features) + " x " + std::to_string(layer.in_features) + ", nnz " +
                           std::to_string(layer.csr.values.size());
  CHECK_CASE(header.out_features == layer.out_features && header.in_features == layer.in_features, name);
  CHECK_CASE(header.nnz == layer.view().values_size && header.entries * layout_entry(layout).height >= header.nnz,
             name);
  CHECK_CASE(header.layout == layout, name);
  const CsrArrays csr = unpacked_floats(buffer);
  CHECK_CASE(csr.crow_indices == layer.csr.crow_indices, name);
  CHECK_CASE(csr.col_indices == layer.csr.col_indices, name);
  CHECK_CASE(same_bits(csr.values, layer.csr.values), name);
}

void round_trips() {
  for (const std::int64_t out : {0, 1, 3, 15, 16, 17, 31, 33, 65}) {
    for (const std::int64_t in : {0, 1, 31, 32, 33, 127, 128, 129, 255, 256, 257}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) {
        check_round_trip(random_layer(out, in, sparsity));
        check_round_trip(random_layer(out, in, sparsity), Layout::csr_f32);
      }
    }
  }
  check_round_trip(random_layer(3, 70000, 0.9));
  check_round_trip(random_layer(3, 70000, 0.9), Layout::csr_f32);
  check_round_trip(random_layer(1000, 2, 0.5));
  for (const std::int64_t out : {1, 4, 5, 63, 64, 65, 257, 1030}) {
    check_round_trip(random_layer(out, 300, 0.8, 1, 4), Layout::sell_4x1_f32);
    check_round_trip(random_layer(out, 300, 0.8, 1, 4), Layout::csr_4x1_f32);
  }
}

/// Values of 16 bits are the nearest, ties to even.
void rounds_to_the_nearest() {
  struct Case {
    float value, bf16, fp16;
  };
  const float infinity = std::numeric_limits<float>::infinity();
  const Case cases[] = {{1.0F, 1.0F, 1.0F},
                        {-0.0F, -0.0F, -0.0F},
                        {1.0F + 0x1p-8F, 1.0F, 1.0F + 0x1p-8F},
                        {1.0F + 0x3p-8F, 1.0F + 0x4p-8F, 1.0F + 0x3p-8F},
                        {1.0F + 0x1p-11F, 1.0F, 1.0F},
                        {1.0F + 0x3p-11F, 1.0F, 1.0F + 0x4p-11F},
                        {0x1p-14F, 0x1p-14F, 0x1p-14F},
                        {0x1p-24F, 0x1p-24F, 0x1p-24F},
                        {0x1.8p-24F, 0x1.8p-24F, 0x1p-23F},
                        {0x1p-25F, 0x1p-25F, 0.0F},
                        {-0x1.ffep-15F, -0x1p-14F, -0x1p-14F},
                        {65519.0F, 65536.0F, 65504.0F},
                        {infinity, infinity, infinity},
                        {-infinity, -infinity, -infinity}};
  for (const Case& wanted : cases) {
    CsrArrays csr{{0, 1}, {0}, {wanted.value}};
    Layer layer{1, 1, {wanted.value}, csr};
    const auto found = [&](Layout layout) { return held(layer, packed(layer.view(), layout)).csr.values; };
    CHECK_CASE(same_bits(found(Layout::sell_bf16), {wanted.bf16}), std::to_string(wanted.value));
    CHECK_CASE(same_bits(found(Layout::sell_fp16), {wanted.fp16}), std::to_string(wanted.value));
    CHECK_CASE(same_bits(found(Layout::csr_bf16), {wanted.bf16}), std::to_string(wanted.value));
    CHECK_CASE(same_bits(found(Layout::csr_fp16), {wanted.fp16}), std::to_string(wanted.value));
  }
  Layer nan{1, 1, {}, {{0, 1}, {0}, {std::numeric_limits<float>::quiet_NaN()}}};
  CHECK(std::isnan(held(nan, packed(nan.view(), Layout::sell_bf16)).csr.values[0]));
  CHECK(std::isnan(held(nan, packed(nan.view(), Layout::sell_fp16)).csr.values[0]));
  Layer large{1, 1, {}, {{0, 1}, {0}, {-65520.0F}}};
  CHECK_THROWS(packed(large.view(), Layout::sell_fp16), "float16 values go up to 65504.000000, got 65520.000000");
}

void finds_and_fills_blocks() {
  Layer layer = random_layer(72, 300, 0.5, 1, 4);
  const auto nnz = static_cast<std::int64_t>(layer.csr.values.size());
  CHECK(full_block_entries(layer.view(), 4, 1.0) == nnz);
  const Layer other = random_layer(70, 300, 0.5);
  CHECK(full_block_entries(other.view(), 4, 0.95) == -1);
  CHECK_THROWS(packed(other.view(), Layout::csr_4x1_f32), "blocks of 4x1 must be full, but the rows 0 and 1");
  CHECK_THROWS(packed(other.view(), Layout::sell_4x1_f32), "blocks of 4x1 must be full, but the rows 0 and 1");
  const std::int64_t entries = full_block_entries(other.view(), 4, 0.0);
  Layer full{70, 300, {}, std::get<CsrArrays>(with_full_blocks(other.view(), 4, entries))};
  validate(full.view());
  CHECK(static_cast<std::int64_t>(full.csr.values.size()) == entries);
  std::vector<float> dense(other.dense.size());
  csr_to_dense(full.view(), dense.data());
  CHECK(same_bits(dense, other.dense));
  check_round_trip(full, Layout::sell_4x1_f32);
}

/// Quads that the rows at a slot and the one after it begin with in common.
unsigned shared_quads(const PackedWeight& weight, std::int64_t at) {
  const std::uint8_t* columns = weight.columns + weight.slice_offsets[at / kSlice] * kStripe;
  const auto slot = static_cast<unsigned>(at % kSlice);
  const std::uint8_t* a = columns + column_place<float>(slot);
  const std::uint8_t* b = columns + column_place<float>(slot + 1);
  const unsigned quads = std::min(weight.row_lengths[at], weight.row_lengths[at + 1]) / kQuad;
  unsigned shared = 0;
  while (shared < quads && std::memcmp(a + shared * kStripe, b + shared * kStripe, kQuad) == 0) ++shared;
  return shared;
}

/// Quads that all pairs of a slice begin with in common, at least, and whether rows are sorted by their entries.
unsigned least_shared(const PackedWeight& weight, std::int64_t at) {
  unsigned least = 32;
  for (std::int64_t p = at; p < at + kSlice; p += 2) least = std::min(least, shared_quads(weight, p));
  CHECK(std::is_sorted(weight.row_lengths + at, weight.row_lengths + at + kSlice, std::greater<>()));
  return least;
}

/// Pairs by chance share 32 of 64 entries at 50%, the poorest of eight 25 or so; chosen ones must share more.
void neighbors_share_columns() {
  const Layer layer = random_layer(64, 128 * 20, 0.5);
  const Bytes buffer = packed(layer.view());
  const PackedWeight weight = packed_view(packed_header(buffer.data(), buffer.size()));
  unsigned quads = 0;
  for (std::int64_t slice = 0; slice < 80; ++slice) {
    if (slice % 4 != 3) quads += least_shared(weight, slice * kSlice);  // an empty row is in every fourth
  }
  CHECK_CASE(quads > 60 * 6, std::to_string(quads));
  const Layer twins = random_layer(64, 256, 0.5, 1, 64);
  const Bytes equal = packed(twins.view());
  const PackedWeight same = packed_view(packed_header(equal.data(), equal.size()));
  for (std::int64_t slice = 0; slice < 8; ++slice) {
    CHECK(least_shared(same, slice * kSlice) == same.row_lengths[slice * kSlice] / kQuad);
  }
}

/// A CSR matrix may hold zeros, which padding must not swallow, and any other float.
void keeps_stored_values() {
  Layer layer = random_layer(17, 40, 0.5);
  layer.csr.values[0] = 0.0F;
  layer.csr.values[1] = -0.0F;
  layer.csr.values[2] = std::numeric_limits<float>::quiet_NaN();
  layer.csr.values[3] = -std::numeric_limits<float>::infinity();
  layer.csr.values.back() = 0.0F;
  check_round_trip(layer);
}

/// What lay in the buffer before must not show: equal weights have equal bytes.
void writes_every_byte() {
  const Layer layer = random_layer(33, 129, 0.9);
  const PackPlan plan = plan_pack(layer.view(), Layout::sell_f32);
  Bytes dirty(plan.header.total_bytes, std::byte{0xFF});
  write_packed(layer.view(), plan, dirty.data());
  CHECK(dirty == packed(layer.view()));
}

void parts_are_aligned() {
  const PackedHeader header = plan_pack(random_layer(33, 129, 0.9).view(), Layout::sell_f32).header;
  for (const auto offset : {header.slot_to_row_start, header.slice_offsets_start, header.row_lengths_start,
                            header.values_start, header.columns_start, header.total_bytes}) {
    CHECK(offset % 64 == 0);
  }
}

template <class Change>
Bytes changed(Bytes buffer, const Change& change) {
  PackedHeader header;
  std::memcpy(&header, buffer.data(), sizeof header);
  change(header);
  std::memcpy(buffer.data(), &header, sizeof header);
  return buffer;
}

void refuses_buffers() {
  const Bytes good = packed(random_layer(17, 33, 0.5).view());
  const std::string size = std::to_string(good.size());
  CHECK_THROWS(packed_header(nullptr, 0), "at least 128 bytes, got 0");
  CHECK_THROWS(packed_header(good.data(), 127), "at least 128 bytes, got 127");
  CHECK_THROWS(packed_header(good.data(), 128), "says it has " + size + " bytes, got 128");
  CHECK_THROWS(packed_header(good.data(), good.size() - 1), "says it has " + size + " bytes");
  CHECK_THROWS(packed_header(good.data(), good.size() + 64), "says it has " + size + " bytes");
  const Bytes magic = changed(good, [](PackedHeader& header) { header.magic ^= 1; });
  CHECK_THROWS(packed_header(magic.data(), magic.size()), "not a packed weight of this version");
  const Bytes version = changed(good, [](PackedHeader& header) { ++header.version; });
  CHECK_THROWS(packed_header(version.data(), version.size()), "not a packed weight of this version");
  const Bytes total = changed(good, [](PackedHeader& header) { header.total_bytes += 64; });
  CHECK_THROWS(packed_header(total.data(), total.size()), "says it has");
  const auto contradicts = [&](const auto& change) {
    const Bytes buffer = changed(good, change);
    CHECK_THROWS(packed_header(buffer.data(), buffer.size()), "contradicts itself");
  };
  contradicts([](PackedHeader& header) { header.out_features = std::numeric_limits<std::int64_t>::max() / 33; });
  contradicts([](PackedHeader& header) {
    header.out_features = std::numeric_limits<std::int64_t>::max() - 1;
    header.in_features = 0;
  });
  for (const std::int64_t count : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    contradicts([&](PackedHeader& header) { header.entries = count; });
    contradicts([&](PackedHeader& header) { header.nnz = count; });
  }
}

void refuses_layouts() { CHECK_THROWS(layout_entry(static_cast<Layout>(99)), "unknown layout 99"); }

/// The size is refused before any array is read, so none is needed.
void refuses_too_many_nonzeros() {
  const std::int64_t nnz = std::int64_t{1} << 32;
  const CsrView csr{nullptr, 2, nullptr, nnz, nullptr, nnz, 1, 1};
  CHECK_THROWS(plan_pack(csr, Layout::sell_f32), "fewer than 2^32 nonzeros, got 4294967296");
}

}  // namespace

int main() {
  round_trips();
  rounds_to_the_nearest();
  neighbors_share_columns();
  finds_and_fills_blocks();
  keeps_stored_values();
  writes_every_byte();
  parts_are_aligned();
  refuses_buffers();
  refuses_layouts();
  refuses_too_many_nonzeros();
  return check::result();
}
