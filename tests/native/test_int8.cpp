// int8 weights: bytes and values worked out here from their definition, whole sums exactly, on every instruction set.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "layer.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

std::vector<float> largest_over_127(const Layer& layer) {
  std::vector<float> scales;
  for (std::int64_t r = 0; r < layer.out_features; ++r) {
    float most = 0;
    for (std::int64_t c = 0; c < layer.in_features; ++c) {
      most = std::max(most, std::fabs(layer.dense[static_cast<std::size_t>(r * layer.in_features + c)]));
    }
    scales.push_back(most > 0 ? most / 127 : 1.0F);
  }
  return scales;
}

Bytes packed_s8(const Layer& layer, const std::vector<float>& scales, Layout layout = Layout::sell_s8) {
  const PackPlan plan = plan_pack(layer.view(), layout, scales.data());
  Bytes buffer(plan.header.total_bytes, std::byte{0xFF});
  write_packed(layer.view(), plan, buffer.data());
  return buffer;
}

struct Quantized {
  double scale;
  std::int64_t zero_point;
  std::vector<std::int64_t> bytes;
};

Quantized quantized(const float* x, std::int64_t features) {
  float low = 0;
  float high = 0;
  for (std::int64_t f = 0; f < features; ++f) {
    low = std::min(low, x[f]);
    high = std::max(high, x[f]);
  }
  const float scale = high == low ? 1.0F : (high - low) * (1.0F / 255.0F);
  const float inverse = 1.0F / scale;
  if (!(inverse < 3.0e38F)) return {1.0, 0, std::vector<std::int64_t>(static_cast<std::size_t>(features))};
  Quantized found{double{scale}, std::lrint(-low * inverse), {}};
  for (std::int64_t f = 0; f < features; ++f) {
    const std::int64_t byte = std::lrint(x[f] * inverse) + found.zero_point;
    found.bytes.push_back(std::clamp<std::int64_t>(byte, 0, 255));
  }
  return found;
}

/// What must come out, without bias and activation function.
std::vector<double> expected(const Layer& layer, const std::vector<float>& scales, const std::vector<float>& input,
                             std::int64_t tokens) {
  std::vector<double> output;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const Quantized token = quantized(input.data() + t * layer.in_features, layer.in_features);
    for (std::int64_t r = 0; r < layer.out_features; ++r) {
      const float scale = scales[static_cast<std::size_t>(r)];
      std::int64_t sum = 0;
      for (std::int64_t c = 0; c < layer.in_features; ++c) {
        const float value = layer.dense[static_cast<std::size_t>(r * layer.in_features + c)];
        const auto quantized_value = static_cast<std::int64_t>(std::lrint(std::clamp(value / scale, -127.0F, 127.0F)));
        sum += quantized_value * (token.bytes[static_cast<std::size_t>(c)] - token.zero_point);
      }
      output.push_back(static_cast<double>(sum) * token.scale * double{scale});
    }
  }
  return output;
}

void check_layer(const Layer& layer, std::int64_t tokens, const std::vector<float>& input,
                 Layout layout = Layout::sell_s8) {
  const std::vector<float> scales = largest_over_127(layer);
  const Bytes weight = packed_s8(layer, scales, layout);
  const std::vector<double> wanted = expected(layer, scales, input, tokens);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    const std::vector<float> found = output_of(layer, weight, Direction::forward, input, tokens);
    bool right = found.size() == wanted.size();
    for (std::size_t i = 0; right && i < found.size(); ++i) {
      right = std::fabs(double{found[i]} - wanted[i]) <= 3e-7 * std::fabs(wanted[i]);
    }
    CHECK_CASE(right, isa + " " + std::to_string(layer.out_features) + " x " + std::to_string(layer.in_features) +
                          ", nnz " + std::to_string(layer.csr.values.size()) + ", tokens " + std::to_string(tokens));
  }
}

void sums_are_exact() {
  for (const std::int64_t out : {1, 17, 64, 70, 130}) {
    for (const std::int64_t in : {1, 33, 128, 129, 300}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) {
        const Layer layer = random_layer(out, in, sparsity);
        for (const std::int64_t tokens : {0, 1, 2, 3, 4, 7, 8, 9, 33, 64, 70}) {
          check_layer(layer, tokens, random_floats(tokens * in, 11));
        }
      }
    }
  }
}

void sums_of_blocks_are_exact() {
  for (const std::int64_t out : {1, 5, 64, 66, 257, 600}) {
    for (const std::int64_t in : {1, 128, 300}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) {
        const Layer layer = random_layer(out, in, sparsity, 1, 4);
        for (const std::int64_t tokens : {1, 2, 4, 7, 9, 33, 64, 70}) {
          check_layer(layer, tokens, random_floats(tokens * in, 11), Layout::sell_4x1_s8);
        }
      }
    }
  }
}

/// Outlying features, tokens of one sign, constant tokens, zeros, tiny and large numbers.
void awkward_tokens() {
  const std::int64_t in = 200;
  const Layer layer = random_layer(40, in, 0.7);
  std::vector<float> input = random_floats(9 * in, 3);
  const auto token = [&](std::int64_t t) { return input.data() + t * in; };
  token(0)[7] = 1000.0F;
  for (std::int64_t f = 0; f < in; ++f) {
    token(1)[f] = std::fabs(token(1)[f]);
    token(2)[f] = -std::fabs(token(2)[f]);
    token(3)[f] = 0.0F;
    token(4)[f] = 3.0F;
    token(5)[f] = -3.0F;
    token(6)[f] *= 1e-20F;
    token(7)[f] *= 1e20F;
    token(8)[f] *= 1e-38F;
  }
  check_layer(layer, 9, input);
}

/// Every sum at its largest: all values 127, all bytes 255.
void the_longest_rows() {
  const std::int64_t in = 66311;
  const Layer layer = layer_from_dense(std::vector<float>(static_cast<std::size_t>(in), 2.0F), 1, in);
  check_layer(layer, 1, std::vector<float>(static_cast<std::size_t>(in), 1.0F));
  const Layer longer = layer_from_dense(std::vector<float>(static_cast<std::size_t>(in + 1), 2.0F), 1, in + 1);
  CHECK_THROWS(packed_s8(longer, {1.0F}), "int8 values allow 66311 nonzeros a row, got 66312 in row 0");
}

/// What every vendor's kernels give, on this machine: the same, bit for bit.
void vendors_agree(Layout layout) {
  const Layer layer = random_layer(300, 500, 0.8, 1, layout_entry(layout).height);
  const Bytes weight = packed_s8(layer, largest_over_127(layer), layout);
  const PackedHeader& header = packed_header(weight.data(), weight.size());
  for (const std::int64_t tokens : {1, 8, 33, 49, 70}) {
    const std::vector<float> input = random_floats(tokens * 500, 5);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      const std::vector<float> expected = output_of(layer, weight, Direction::forward, input, tokens);
      for (const Vendor vendor : {Vendor::others, Vendor::amd}) {
        std::vector<float> output(expected.size(), 7.0F);
        run({{packed_view(header),
              layout,
              header.entries,
              Direction::forward,
              {input.data(), 500, tokens},
              {output.data(), 300, tokens, nullptr, Activation::none}}},
            kernels_for(all_kernels(), vendor));
        CHECK_CASE(same_bits(output, expected), isa + ", tokens " + std::to_string(tokens));
      }
    }
  }
}

void threads_agree(Layout layout) {
  const Layer layer = random_layer(2100, 1400, 0.8, 1, layout_entry(layout).height);
  const Bytes weight = packed_s8(layer, largest_over_127(layer), layout);
  for (const std::int64_t tokens : {1, 8, 70}) {
    const std::vector<float> input = random_floats(tokens * 1400, 5);
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      set_pool_threads(1);
      const std::vector<float> alone = output_of(layer, weight, Direction::forward, input, tokens);
      set_pool_threads(3);
      CHECK_CASE(same_bits(alone, output_of(layer, weight, Direction::forward, input, tokens)), isa);
    }
  }
  set_pool_threads(1);
}

void refuses_what_cannot_be_quantized() {
  Layer layer = random_layer(17, 33, 0.5);
  const std::vector<float> scales = largest_over_127(layer);
  const Bytes weight = packed_s8(layer, scales);
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(), 3.3e38F}) {
    std::vector<float> input = random_floats(5 * 33, 2);
    input[100] = bad;
    for (const auto& isa : available_isas()) {
      use_isa(isa);
      CHECK_THROWS(output_of(layer, weight, Direction::forward, input, 5), "cannot be quantized to int8");
    }
  }
  CHECK_THROWS(output_of(layer, weight, Direction::transposed, random_floats(17, 1), 1), "has no gradient");
  CHECK_THROWS(packed_s8(layer, std::vector<float>(17, 0.0F)), "scales must be positive and finite");
  layer.csr.values[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS(packed_s8(layer, scales), "int8 values must be finite");
}

void unpacks_to_what_is_multiplied(Layout layout, std::int64_t out, std::int64_t in, double sparsity) {
  const Layer layer = random_layer(out, in, sparsity, 1, layout_entry(layout).height);
  const std::vector<float> scales = largest_over_127(layer);
  const Bytes weight = packed_s8(layer, scales, layout);
  const CsrArrays csr = unpacked_floats(weight);
  CHECK(csr.crow_indices == layer.csr.crow_indices && csr.col_indices == layer.csr.col_indices);
  for (std::int64_t r = 0; r < layer.out_features; ++r) {
    const float scale = scales[static_cast<std::size_t>(r)];
    for (std::int64_t i = csr.crow_indices[static_cast<std::size_t>(r)];
         i < csr.crow_indices[static_cast<std::size_t>(r + 1)]; ++i) {
      const float difference = csr.values[static_cast<std::size_t>(i)] - layer.csr.values[static_cast<std::size_t>(i)];
      CHECK(std::fabs(difference) <= 0.500001F * scale);
    }
  }
}

void unpacks() {
  for (const Layout layout : {Layout::sell_s8, Layout::sell_4x1_s8}) {
    for (const std::int64_t out : {1, 16, 70, 257}) {
      for (const std::int64_t in : {0, 1, 63, 64, 65, 127, 128, 129, 192, 193, 300}) {
        for (const double sparsity : {0.0, 0.6, 0.95, 1.0}) unpacks_to_what_is_multiplied(layout, out, in, sparsity);
      }
    }
  }
}

/// 16 rows have four entries each among the inputs 64 to 127, which lie in both column blocks, and four before or
/// after: a stripe in each column block has room for all of them.
void overlapping_column_blocks_share_inputs() {
  std::vector<float> dense(16 * 192, 0.0F);
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t i = 0; i < 4; ++i) {
      dense[row * 192 + 64 + 5 * i + row] = 1.0F;
      dense[row * 192 + row % 2 * 128 + 7 * i + row] = 1.0F;
    }
  }
  const Layer layer = layer_from_dense(dense, 16, 192);
  const PackedHeader header = plan_pack(layer.view(), Layout::sell_s8, std::vector<float>(16, 1.0F).data()).header;
  CHECK(header.column_blocks == 2 && header.nnz == 128 && header.entries == 128);
}

}  // namespace

int main() {
  sums_are_exact();
  sums_of_blocks_are_exact();
  awkward_tokens();
  the_longest_rows();
  vendors_agree(Layout::sell_s8);
  vendors_agree(Layout::sell_4x1_s8);
  threads_agree(Layout::sell_s8);
  threads_agree(Layout::sell_4x1_s8);
  threads_agree(Layout::dense_s8);
  refuses_what_cannot_be_quantized();
  unpacks();
  overlapping_column_blocks_share_inputs();
  return check::result();
}
