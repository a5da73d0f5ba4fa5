// Several threads that call one encoder at once, each with sequences of its own: the answers of serial calls, bit for
// bit, in every family and for every task.
#include <atomic>
#include <thread>

#include "check.h"
#include "encoder_families.h"
#include "model/encoder.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

/// More than workspaces that an encoder keeps.
constexpr std::int64_t kCallers = 6;
/// As many as it takes for a group of tokens that has work for all of them.
constexpr int kPoolThreads = 6;
constexpr int kRounds = 2;

/// Sequences of one caller. Every third caller has enough for the threads of the pool, and for more than one group of
/// tokens; the others have a few.
struct Texts {
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int32_t> ids;

  explicit Texts(std::int64_t caller) {
    const std::int64_t count = caller % 3 == 0 ? 100 + caller : caller;
    for (std::int64_t i = 0; i < count; ++i) {
      offsets.push_back(offsets.back() + (caller % 3 == 0 ? kTokens - i % 2 : (i + caller) % kTokens));
    }
    for (std::int64_t t = 0; t < offsets.back(); ++t) {
      ids.push_back(static_cast<std::int32_t>((t * 31 + caller) % kVocabulary));
    }
  }
  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  EncoderInput input() const { return {ids.data(), nullptr, {offsets.data(), count()}}; }
};

/// Hidden states of a caller's texts, and what `encode` gives.
std::vector<float> answers(const Encoder& encoder, const Texts& texts) {
  const auto states = static_cast<std::size_t>(texts.offsets.back() * encoder.features());
  const auto most = static_cast<std::size_t>(texts.offsets.back() + texts.count());
  std::vector<float> output(states + most * static_cast<std::size_t>(encoder.outputs()), 7.0F);
  encoder.run(texts.input(), output.data());
  encoder.encode(texts.input(), output.data() + states);
  return output;
}

void callers_agree(const EncoderFamily& family, const std::string& name) {
  const AlignedBytes file = family.file();
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  std::vector<std::vector<float>> expected;
  for (std::int64_t i = 0; i < kCallers; ++i) expected.push_back(answers(encoder, Texts(i)));
  for (std::int64_t i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] {
      const Texts texts(i);
      for (int round = 0; round < kRounds; ++round) {
        wrong += same_bits(answers(encoder, texts), expected[static_cast<std::size_t>(i)]) ? 0 : 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_CASE(wrong.load() == 0, name + ": " + std::to_string(wrong.load()) + " calls");
}

}  // namespace

int main() {
  set_pool_threads(kPoolThreads);
  for (const Layout layout : {Layout::sell_f32, Layout::sell_s8}) {
    const EncoderFamily bert{small_encoder(layout), small_options()};
    callers_agree(bert, "embedding");
    callers_agree(labels_of_sequences(bert, layout, Pooling::cls), "classification");
    callers_agree(labels_of_tokens(bert, layout), "classification of tokens");
    callers_agree(int8_tables(layout), "tables in int8");
    callers_agree(projected(layout), "projected embeddings");
    callers_agree(labels_of_sequences(biased(layout), layout, Pooling::max), "biases by distance");
    callers_agree(labels_of_sequences(pre_norm(layout), layout, Pooling::cls), "norms before the halves of a layer");
    callers_agree(mixed(layout), "pieces of several families");
  }
  return check::result();
}
