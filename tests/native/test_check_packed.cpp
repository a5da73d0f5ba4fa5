// The check of packed weights from outside: good ones pass, and what kernels could not run on is refused.
#include <cstring>
#include <vector>

#include "check.h"
#include "formats/check_packed.h"
#include "layer.h"

using namespace sparsekit;

namespace {

void good_ones_pass() {
  for (const LayoutEntry& entry : layout_entries()) {
    const std::int64_t height = entry.height;
    for (const std::int64_t out : {0, 1, 16, 17, 65, 150}) {
      for (const std::int64_t in : {0, 1, 127, 128, 129, 256, 257, 700}) {
        for (const double sparsity : {0.0, 0.5, 0.97, 1.0}) {
          const Bytes buffer = packed(random_layer(out, in, sparsity, 1, height).view(), entry.layout);
          check_packed(buffer.data(), buffer.size());
        }
      }
    }
  }
}

/// One entry of an array of a packed weight, and what it is overwritten with.
template <class T>
struct Damage {
  std::uint64_t PackedHeader::* offset;
  std::int64_t index;
  T value;
};

template <class T>
void refuses(Bytes buffer, const Damage<T>& damage, const char* why) {
  PackedHeader header;
  std::memcpy(&header, buffer.data(), sizeof header);
  std::byte* at = buffer.data() + header.*damage.offset + damage.index * static_cast<std::int64_t>(sizeof(T));
  std::memcpy(at, &damage.value, sizeof(T));
  CHECK_THROWS(check_packed(buffer.data(), buffer.size()), why);
}

std::int64_t good_entries(const Bytes& buffer) { return packed_header(buffer.data(), buffer.size()).entries; }

void refuses_dense_damage(const Bytes& good, const LayoutEntry& entry) {
  using Byte = std::uint8_t;
  if (!entry.scaled) return;
  if (entry.grouped()) return refuses<std::uint16_t>(good, {&PackedHeader::scales_start, 69, 0}, "positive and finite");
  refuses<float>(good, {&PackedHeader::scales_start, 69, -1.0F}, "positive and finite");
  refuses<std::int32_t>(good, {&PackedHeader::row_sums_start, 69, 1 << 30}, "another sum of int8 values in row 69");
  refuses<Byte>(good, {&PackedHeader::values_start, 0, 128}, "from -127 to 127, got -128");
}

/// 70 row groups in all: the second sort window has two slices, of which the last slots are beyond the output features.
void refuses_damage() {
  using Byte = std::uint8_t;
  for (const LayoutEntry& entry : layout_entries()) {
    const Layer layer = random_layer(70 * entry.height, 300, 0.5, 1, entry.height);
    const Bytes good = packed(layer.view(), entry.layout);
    if (entry.family == Family::dense) {
      refuses_dense_damage(good, entry);
      continue;
    }
    refuses<std::uint32_t>(good, {&PackedHeader::slice_offsets_start, 0, 1}, "must start at 0");
    refuses<std::uint32_t>(good, {&PackedHeader::slice_offsets_start, 2, 0xFFFFFFFF}, "must not overlap");
    refuses<std::uint32_t>(good, {&PackedHeader::slice_offsets_start, 2, 0}, "must not overlap");
    if (entry.family == Family::sell) {
      refuses<Byte>(good, {&PackedHeader::row_lengths_start, 0, 255}, "another number of entries than places");
      refuses<Byte>(good, {&PackedHeader::columns_start, 0, 129}, "input features do not have");
    } else {
      refuses<std::uint32_t>(good, {&PackedHeader::slice_offsets_start, 160, 1 << 30}, "its slots must");
      const bool masks = entry.family == Family::bitmask;
      const std::int64_t last = masks ? kMaskBytes * (80 + 80) - 1 : good_entries(good) - 1;
      refuses<Byte>(good, {&PackedHeader::columns_start, last, 44},
                    masks ? "mask that does not have its entries" : "input features do not have");
    }
    refuses<Byte>(good, {&PackedHeader::slot_to_row_start, 0, 64}, "no row of its own");
    refuses<Byte>(good, {&PackedHeader::slot_to_row_start, 70, 32}, "no row of its own");
    refuses<Byte>(good, {&PackedHeader::row_to_slot_start, 3, 200}, "no row of its own");
    if (!entry.scaled) continue;
    refuses<float>(good, {&PackedHeader::scales_start, 69, -1.0F}, "positive and finite");
    if (entry.quantizes)
      refuses<std::int32_t>(good, {&PackedHeader::row_sums_start, 69, 1 << 30}, "another sum of int8 values in row 69");
    refuses<Byte>(good, {&PackedHeader::values_start, 0, 128}, "from -127 to 127, got -128");
  }
}

/// The last block of 300 input features has 44: kernels for one token read them as they lie.
void refuses_columns_past_the_last_input_feature() {
  const Layer layer = random_layer(16, 300, 0.0);
  const Bytes good = packed(layer.view(), Layout::sell_f32);
  const PackedWeight weight = packed_view(packed_header(good.data(), good.size()));
  const std::int64_t at = std::int64_t{weight.slice_offsets[2]} * kStripe;
  CHECK(weight.columns[at] < 44);
  refuses<std::uint8_t>(good, {&PackedHeader::columns_start, at, 44}, "columns that its 300 input features");
}

void refuses_another_number_of_nonzeros() {
  for (const Layout layout : {Layout::sell_f32, Layout::dense_s4}) {
    Bytes buffer = packed(random_layer(17, 33, 0.5).view(), layout);
    PackedHeader header;
    std::memcpy(&header, buffer.data(), sizeof header);
    --header.nnz;
    std::memcpy(buffer.data(), &header, sizeof header);
    CHECK_THROWS(check_packed(buffer.data(), buffer.size()), "must have " + std::to_string(header.nnz) + " nonzeros");
  }
}

/// Whatever byte is changed, the weight is refused or can be run and unpacked: nothing is read or written elsewhere.
void every_changed_byte_is_refused_or_runs() {
  for (const LayoutEntry& entry : layout_entries()) {
    const std::int64_t in = entry.family == Family::sell ? 140 : 268;  // the last column block has 12
    const std::vector<float> input = random_floats(3 * in, 1);
    const Layer layer = random_layer(5 * entry.height, in, 0.8, 1, entry.height);
    const Bytes good = packed(layer.view(), entry.layout);
    const PackedHeader header = packed_header(good.data(), good.size());
    const auto is_value = [&](std::size_t i) { return i >= header.values_start && i < header.columns_start; };
    for (std::size_t i = sizeof(PackedHeader); i < good.size(); i += is_value(i) ? 61U : 1U) {
      Bytes buffer = good;
      buffer[i] ^= static_cast<std::byte>(1U << i % 8);
      try {
        check_packed(buffer.data(), buffer.size());
      } catch (const std::invalid_argument&) {
        continue;
      }
      for (const std::int64_t tokens : {1, 3}) output_of(layer, buffer, Direction::forward, input, tokens);
      if (entry.has_gradient()) output_of(layer, buffer, Direction::transposed, input, 1);
      held(layer, buffer);
    }
  }
}

}  // namespace

int main() {
  good_ones_pass();
  refuses_damage();
  refuses_columns_past_the_last_input_feature();
  refuses_another_number_of_nonzeros();
  every_changed_byte_is_refused_or_runs();
  return check::result();
}
