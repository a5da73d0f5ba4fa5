// int4 weights: bytes and values worked out here from their definition, on every instruction set; the same bits for a
// token alone and among others.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "formats/check_packed.h"
#include "formats/values.h"
#include "layer.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

/// Of each group, the float16 next to a seventh of its largest magnitude.
std::vector<float> scales_for(const Layer& layer) {
  const std::int64_t groups = groups_of(layer.in_features);
  std::vector<float> scales(static_cast<std::size_t>(layer.out_features * groups), 0.0F);
  for (std::int64_t i = 0; i < layer.out_features * layer.in_features; ++i) {
    float& scale = scales.data()[i / layer.in_features * groups + i % layer.in_features / kGroup];
    scale = std::max(scale, std::fabs(layer.dense.data()[i]));
  }
  for (float& scale : scales) scale = scale > 0 ? to_float(to_float16(scale / 7)) : 1.0F;
  return scales;
}

Bytes packed_s4(const Layer& layer, const std::vector<float>& scales) {
  const PackPlan plan = plan_pack(layer.view(), Layout::dense_s4, scales.data());
  Bytes buffer(plan.header.total_bytes, std::byte{0xFF});
  write_packed(layer.view(), plan, buffer.data());
  check_packed(buffer.data(), buffer.size());
  return buffer;
}

/// The inputs of a group, as whole numbers and their scale.
struct Quantized {
  double scale;
  std::vector<double> bytes;

  Quantized(const float* x, std::int64_t count) : scale(0) {
    float most = 0;
    for (std::int64_t i = 0; i < count; ++i) most = std::max(most, std::fabs(x[i]));
    const float inverse = 127.0F / most;
    scale = double{most * (1.0F / 127.0F)};
    for (std::int64_t i = 0; i < count; ++i) bytes.push_back(inverse < 3e38F ? std::nearbyint(x[i] * inverse) : 0.0);
  }
};

/// What must come out, without bias and activation function, and the sum of the magnitudes of what is added.
struct Expected {
  double sum = 0;
  double magnitude = 0;
};

std::vector<Expected> expected(const Layer& layer, const std::vector<float>& scales, const std::vector<float>& input,
                               std::int64_t tokens) {
  const std::int64_t groups = groups_of(layer.in_features);
  std::vector<Expected> output(static_cast<std::size_t>(tokens * layer.out_features));
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = g * kGroup;
      const Quantized x(input.data() + t * layer.in_features + first, std::min(kGroup, layer.in_features - first));
      for (std::int64_t r = 0; r < layer.out_features; ++r) {
        const float scale = scales[static_cast<std::size_t>(r * groups + g)];
        double sum = 0;
        for (std::size_t i = 0; i < x.bytes.size(); ++i) {
          const float value = layer.dense.data()[r * layer.in_features + first + static_cast<std::int64_t>(i)];
          sum += std::clamp(std::nearbyint(double{value / scale}), -8.0, 7.0) * x.bytes[i];
        }
        Expected& to = output[static_cast<std::size_t>(t * layer.out_features + r)];
        to.sum += sum * x.scale * double{scale};
        to.magnitude += std::fabs(sum * x.scale * double{scale});
      }
    }
  }
  return output;
}

/// Three roundings of every group's sum, and one of each sum of these.
bool agree(const std::vector<float>& found, const std::vector<Expected>& wanted, std::int64_t groups) {
  const double bound = static_cast<double>(groups + 3) * double{std::numeric_limits<float>::epsilon()};
  bool right = found.size() == wanted.size();
  for (std::size_t i = 0; right && i < found.size(); ++i) {
    right = std::fabs(double{found[i]} - wanted[i].sum) <= bound * wanted[i].magnitude;
  }
  return right;
}

void check_layer(const Layer& layer, const std::vector<float>& input, std::int64_t tokens) {
  const std::vector<float> scales = scales_for(layer);
  const Bytes weight = packed_s4(layer, scales);
  const std::vector<Expected> wanted = expected(layer, scales, input, tokens);
  for (const auto& isa : available_isas()) {
    use_isa(isa);
    const std::string name = isa + " " + std::to_string(layer.out_features) + " x " +
                             std::to_string(layer.in_features) + ", tokens " + std::to_string(tokens);
    const std::vector<float> found = output_of(layer, weight, Direction::forward, input, tokens);
    CHECK_CASE(agree(found, wanted, groups_of(layer.in_features)), name);
    std::vector<float> alone;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto row = input.begin() + t * layer.in_features;
      const std::vector<float> one = output_of(layer, weight, Direction::forward, {row, row + layer.in_features}, 1);
      alone.insert(alone.end(), one.begin(), one.end());
    }
    CHECK_CASE(same_bits(alone, found), name + " alone");
  }
}

void sums_are_exact() {
  for (const std::int64_t out : {1, 16, 17, 70, 130}) {
    for (const std::int64_t in : {0, 1, 8, 33, 64, 127, 128, 129, 300, 576}) {
      for (const double sparsity : {0.0, 0.5, 1.0}) {
        const Layer layer = random_layer(out, in, sparsity);
        for (const std::int64_t tokens : {1, 2, 3, 9, 50}) check_layer(layer, random_floats(tokens * in, 11), tokens);
      }
    }
  }
}

/// The largest products that there are: nothing overflows.
void the_largest_fit() {
  for (const float sign : {-1.0F, 1.0F}) {
    const Layer layer = layer_from_dense(std::vector<float>(32 * 256, 7.0F * sign), 32, 256);
    check_layer(layer, std::vector<float>(5 * 256, 3.0F), 5);
    check_layer(layer, std::vector<float>(5 * 256, -3.0F), 5);
  }
}

void awkward_inputs() {
  const Layer layer = random_layer(17, 300, 0.5);
  std::vector<float> input = random_floats(3 * 300, 5);
  std::fill_n(input.begin(), 128, 0.0F);
  input[400] = 1e-42F;
  input[700] = 1e30F;
  check_layer(layer, input, 3);
  const Bytes weight = packed_s4(layer, scales_for(layer));
  for (const float wrong : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    input[650] = wrong;
    CHECK_THROWS(output_of(layer, weight, Direction::forward, input, 3), "cannot be quantized");
  }
}

void values_come_back() {
  const Layer layer = random_layer(37, 300, 0.6);
  const std::vector<float> scales = scales_for(layer);
  const Bytes weight = packed_s4(layer, scales);
  const AnyCsrArrays codes = unpacked(weight);
  const CsrView csr = view_of(codes, 37, 300, scales.data());
  validate(csr);
  const PackPlan plan = plan_pack(csr, Layout::dense_s4);
  Bytes again(plan.header.total_bytes);
  write_packed(csr, plan, again.data());
  CHECK(packed_view(plan.header).out_features == 37);
  CHECK(again == weight);
  CHECK(csr.values_size == plan.header.nnz && csr.values_size < layer.view().values_size);
}

void refuses() {
  const Layer layer = random_layer(3, 200, 0.0);
  std::vector<float> scales = scales_for(layer);
  scales[5] = 0.1F;
  CHECK_THROWS(packed_s4(layer, scales), "int4 scales must be numbers that float16 holds, got 0.1");
  scales[5] = 0.0F;
  CHECK_THROWS(packed_s4(layer, scales), "positive and finite, got 0.000000 in row 2");
  const std::vector<float> input(200);
  const Bytes weight = packed_s4(layer, scales_for(layer));
  CHECK_THROWS(output_of(layer, weight, Direction::transposed, {1, 2, 3}, 1), "no gradient");
}

}  // namespace

int main() {
  for (const int threads : {1, 3}) {
    set_pool_threads(threads);
    sums_are_exact();
  }
  the_largest_fit();
  awkward_inputs();
  values_come_back();
  refuses();
  return check::result();
}
