// Packed weights: CSR -> packed -> CSR, and buffers that are no packed weight.
#include <algorithm>
#include <cstring>
#include <limits>

#include "check.h"
#include "layer.h"

using namespace sparsekit;

namespace {

void check_round_trip(const Layer& layer) {
  const Bytes buffer = packed(layer.view());
  const PackedHeader& header = packed_header(buffer.data(), buffer.size());
  const std::string name = std::to_string(layer.out_features) + " x " + std::to_string(layer.in_features) + ", nnz " +
                           std::to_string(layer.csr.values.size());
  CHECK_CASE(header.out_features == layer.out_features && header.in_features == layer.in_features, name);
  CHECK_CASE(header.nnz == layer.view().values_size && header.entries >= header.nnz, name);
  CHECK_CASE(header.layout == Layout::quads, name);
  const CsrArrays csr = layout_entry(header.layout).unpack(packed_view(header), header.nnz);
  CHECK_CASE(csr.crow_indices == layer.csr.crow_indices, name);
  CHECK_CASE(csr.col_indices == layer.csr.col_indices, name);
  CHECK_CASE(same_bits(csr.values, layer.csr.values), name);
}

void round_trips() {
  for (const std::int64_t out : {0, 1, 3, 15, 16, 17, 31, 33, 65}) {
    for (const std::int64_t in : {0, 1, 31, 32, 33, 127, 128, 129, 255, 256, 257}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) check_round_trip(random_layer(out, in, sparsity));
    }
  }
  check_round_trip(random_layer(3, 70000, 0.9));
  check_round_trip(random_layer(1000, 2, 0.5));
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
  const PackPlan plan = plan_pack(layer.view(), Layout::quads);
  Bytes dirty(plan.header.total_bytes, std::byte{0xFF});
  write_packed(layer.view(), plan, dirty.data());
  CHECK(dirty == packed(layer.view()));
}

void parts_are_aligned() {
  const PackedHeader header = plan_pack(random_layer(33, 129, 0.9).view(), Layout::quads).header;
  for (const auto offset : {header.rows_offset, header.starts_offset, header.counts_offset, header.values_offset,
                            header.columns_offset, header.total_bytes}) {
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
}

void refuses_layouts() { CHECK_THROWS(layout_entry(static_cast<Layout>(99)), "unknown layout 99"); }

/// The size is refused before any array is read, so none is needed.
void refuses_too_many_nonzeros() {
  const std::int64_t nnz = std::int64_t{1} << 32;
  const CsrView csr{nullptr, 2, nullptr, nnz, nullptr, nnz, 1, 1};
  CHECK_THROWS(plan_pack(csr, Layout::quads), "fewer than 2^32 nonzeros, got 4294967296");
}

}  // namespace

int main() {
  round_trips();
  keeps_stored_values();
  writes_every_byte();
  parts_are_aligned();
  refuses_buffers();
  refuses_layouts();
  refuses_too_many_nonzeros();
  return check::result();
}
