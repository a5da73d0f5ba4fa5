// Compiled models of which bytes were changed, their checksums made right again: they are refused, or a batch runs
// through them. Everything else must end in std::invalid_argument, and nothing may read or write beyond what is there.
#include <fuzzer/FuzzedDataProvider.h>

#include "../native/compiled_model.h"
#include "model/encoder.h"
#include "operators/instruction_set.h"

extern "C" const sparsekit::KernelTable sparsekit_kernels_scalar;
extern "C" const sparsekit::KernelTable sparsekit_kernels_avx2;

/// In the place of operators/instruction_set.cpp, which wants the kernels of all instruction sets.
const sparsekit::KernelTable& sparsekit::current_kernels() {
  return __builtin_cpu_supports("avx2") == 0 ? sparsekit_kernels_scalar : sparsekit_kernels_avx2;
}

using namespace sparsekit;

namespace {

/// An encoder that embeds; in CSR one that classifies, with tables of distances.
AlignedBytes small_file(Layout layout) {
  Tensors tensors = small_encoder(layout);
  EncoderOptions options = small_options();
  if (layout == Layout::csr_f32) {
    options.task = static_cast<std::int32_t>(Task::classification);
    options.head_activation = static_cast<std::int32_t>(HeadActivation::tanh);
    tensors[{kNoLayer, Role::head_dense}] = sparse_tensor(30, kFeatures, 60, layout);
    tensors[{kNoLayer, Role::classifier}] = sparse_tensor(5, 30, 61, layout);
    Tensor& rows = tensors[{kNoLayer, Role::distance_rows}] = float_tensor(35, 1, 62);
    std::ranges::fill(rows.bytes, std::byte{0});
    tensors[{0, Role::position_key}] = float_tensor(1, kFeatures, 63);
    tensors[{0, Role::position_query}] = float_tensor(1, kFeatures, 64);
  }
  return compiled(tensors, options);
}

const AlignedBytes& good_file(Layout layout) {
  static std::map<Layout, AlignedBytes> files;
  const auto found = files.find(layout);
  return found != files.end() ? found->second : files.emplace(layout, small_file(layout)).first->second;
}

/// Writes numbers to the header and the entries, and bytes anywhere.
void change(FuzzedDataProvider& data, AlignedBytes& file, std::size_t head) {
  while (data.remaining_bytes() > 0) {
    if (data.ConsumeBool()) {
      const auto at = data.ConsumeIntegralInRange<std::size_t>(0, head / 4 - 1) * 4;
      const auto number = data.ConsumeIntegral<std::int32_t>();
      std::memcpy(file.data.get() + at, &number, sizeof number);
    } else {
      const auto at = data.ConsumeIntegralInRange<std::size_t>(0, file.size - 1);
      file.data.get()[at] = static_cast<std::byte>(data.ConsumeIntegral<std::uint8_t>());
    }
  }
}

void run_batch(const Encoder& encoder) {
  const std::int64_t offsets[] = {0, 1, 1, 4};
  const std::int32_t ids[] = {0, 3, 1, 2};
  const EncoderInput input{ids, nullptr, {offsets, 3}};
  std::vector<float> output(static_cast<std::size_t>(4 * std::max(encoder.features(), encoder.outputs())));
  encoder.run(input, output.data());
  encoder.encode(input, output.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider data(bytes, size);
  constexpr Layout kLayouts[] = {Layout::sell_f32, Layout::csr_f32, Layout::bitmask_f32, Layout::sell_s8};
  AlignedBytes file(good_file(kLayouts[data.ConsumeIntegralInRange<std::size_t>(0, std::size(kLayouts) - 1)]));
  change(data, file, sizeof(CompiledHeader) + small_encoder(Layout::sell_f32).size() * sizeof(TensorEntry));
  set_checksums(file);
  try {
    run_batch(Encoder(CompiledFile(file.data.get(), file.size)));
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
