// Compiled encoders and decoders of all families of which bytes were changed, their checksums made right again: they
// are refused, or a batch runs through them. Everything else must end in std::invalid_argument, and nothing may read or
// write beyond what is there.
#include <fuzzer/FuzzedDataProvider.h>

#include "../native/decoder_families.h"
#include "../native/encoder_families.h"
#include "model/decoder.h"
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

EncoderFamily bert(Layout layout) { return {small_encoder(layout), small_options()}; }

EncoderFamily hidden_states(Layout layout) {
  EncoderFamily family = bert(layout);
  family.options.pooling = static_cast<std::int32_t>(Pooling::none);
  return family;
}

/// Whatever a compiled encoder may hold is in one of them, and of a decoder in one of `kDecoders`.
EncoderFamily (*const kEncoders[])(Layout) = {
    bert,
    hidden_states,
    int8_tables,
    projected,
    biased,
    disentangled,
    disentangled_in_windows,
    pre_norm,
    mixed,
    without_layers,
    [](Layout layout) { return labels_of_sequences(bert(layout), layout, Pooling::mean); },
    [](Layout layout) { return labels_of_sequences(biased(layout), layout, Pooling::cls); },
    [](Layout layout) { return labels_of_sequences(pre_norm(layout), layout, Pooling::cls); },
    [](Layout layout) { return labels_of_tokens(projected(layout), layout); },
    [](Layout layout) { return labels_of_tokens(mixed(layout), layout); },
};
constexpr Layout kLayouts[] = {Layout::sell_f32, Layout::csr_f32, Layout::bitmask_f32, Layout::sell_s8,
                               Layout::dense_s8};

constexpr std::size_t kFamilies = std::size(kEncoders) + std::size(kDecoders);

struct GoodFile {
  AlignedBytes file;
  std::size_t head;  // bytes of the header and the entries
};

template <class Family>
GoodFile good_file_of(const Family& family) {
  return {family.file(), sizeof(CompiledHeader) + family.tensors.size() * sizeof(TensorEntry)};
}

const GoodFile& good_file(std::size_t family, std::size_t layout) {
  static std::map<std::pair<std::size_t, std::size_t>, GoodFile> files;
  const auto found = files.find({family, layout});
  if (found != files.end()) return found->second;
  GoodFile made = family < std::size(kEncoders)
                      ? good_file_of(kEncoders[family](kLayouts[layout]))
                      : good_file_of(kDecoders[family - std::size(kEncoders)].make(kLayouts[layout]));
  return files.emplace(std::pair{family, layout}, std::move(made)).first->second;
}

/// An index below `count`.
std::size_t choose(FuzzedDataProvider& data, std::size_t count) {
  return data.ConsumeIntegralInRange<std::size_t>(0, count - 1);
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

/// Sequences without a token, of one, and of more than two windows.
void run_batch(const Encoder& encoder) {
  const std::int64_t offsets[] = {0, 1, 1, 4, 13};
  const std::int32_t ids[] = {0, 3, 1, 2, 4, 2, 0, 1, 1, 3, 2, 4, 0};
  const std::int32_t types[std::size(ids)] = {0, 1};
  const EncoderInput input{ids, encoder.types() > 1 ? types : nullptr, {offsets, 4}};
  std::vector<float> output(std::size(ids) * static_cast<std::size_t>(std::max(encoder.features(), encoder.outputs())));
  encoder.run(input, output.data());
  encoder.encode(input, output.data());
}

/// Two texts at once, then a token of each, and one more behind a part of the first.
void run_texts(const Decoder& decoder, DType dtype) {
  const std::int64_t offsets[] = {0, 9, 13};
  const std::int64_t next_offsets[] = {0, 1, 2};
  const std::int32_t ids[] = {0, 3, 1, 2, 4, 2, 0, 1, 1, 3, 2, 4, 0};
  std::vector<float> logits(std::size(ids) * static_cast<std::size_t>(decoder.vocabulary()));
  KeyValueCache first(decoder.cache_shape(), 10, dtype);
  KeyValueCache second(decoder.cache_shape(), 16, dtype);
  KeyValueCache* const caches[] = {&first, &second};
  decoder.run({ids, {offsets, 2}, caches}, LogitsOf::all, logits.data());
  decoder.run({ids, {next_offsets, 2}, caches}, LogitsOf::last, logits.data());
  first.truncate(6);
  second.copy(first, 4);
  decoder.run({ids, {next_offsets, 1}, caches + 1}, LogitsOf::last, logits.data());
}

void run(const AlignedBytes& bytes) {
  const CompiledFile file(bytes.data.get(), bytes.size);
  CompiledHeader header;
  std::memcpy(&header, bytes.data.get(), sizeof header);
  if (header.kind != ModelKind::decoder) return run_batch(Encoder(file));
  const Decoder decoder(file);
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) run_texts(decoder, dtype);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider data(bytes, size);
  const std::size_t family = choose(data, kFamilies);
  const GoodFile& good = good_file(family, choose(data, std::size(kLayouts)));
  AlignedBytes file(good.file);
  change(data, file, good.head);
  set_checksums(file);
  try {
    run(file);
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
