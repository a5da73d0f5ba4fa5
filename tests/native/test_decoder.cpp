// A whole decoder with every instruction set against double precision: texts at once, token by token, in batches and in
// pieces, over caches that are cut and copied; compiled models that contradict themselves are refused.
#include <numeric>

#include "exact_decoder.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

/// Logits are about 1, of sums that have up to 40 terms: 5e-5 is about 420 roundings of the last bit.
constexpr double kTolerance = 5e-5;

std::vector<std::int32_t> text(std::int64_t tokens, std::int32_t seed = 0) {
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < tokens; ++i)
    ids.push_back((i * 31 + seed + i / 7) % static_cast<std::int32_t>(kVocabulary));
  return ids;
}

double furthest(const double* expected, const std::vector<float>& found) {
  double most = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i)
    most = std::max(most, std::fabs(expected[i] - static_cast<double>(found[i])));
  return most;
}

/// Logits of the last tokens, or of all.
std::vector<float> run(const Decoder& decoder, const std::vector<std::int32_t>& ids, std::vector<std::int64_t> offsets,
                       std::vector<KeyValueCache*> caches, LogitsOf which = LogitsOf::last) {
  const std::size_t rows = which == LogitsOf::all ? ids.size() : caches.size();
  std::vector<float> logits(rows * kVocabulary, 7.0F);
  decoder.run({ids.data(), {offsets.data(), static_cast<std::int64_t>(caches.size())}, caches.data()}, which,
              logits.data());
  return logits;
}

void computes(const SmallDecoder& made) {
  const AlignedBytes file = compiled(made);
  const Decoder decoder(CompiledFile(file.data.get(), file.size));
  const std::vector<std::int32_t> ids = text(20);
  const Doubles exact = ExactDecoder(made.tensors, made.options).logits(ids);
  KeyValueCache whole(decoder.cache_shape(), 20);
  CHECK(furthest(exact.data(), run(decoder, ids, {0, 20}, {&whole}, LogitsOf::all)) < kTolerance);

  KeyValueCache stepped(decoder.cache_shape(), 33);
  run(decoder, text(6), {0, 6}, {&stepped});
  for (std::int64_t t = 6; t < 20; ++t) {
    const auto logits = run(decoder, {ids[static_cast<std::size_t>(t)]}, {0, 1}, {&stepped});
    CHECK(furthest(exact.data() + t * kVocabulary, logits) < kTolerance);
  }

  std::vector<std::int32_t> both = text(9, 3);
  const Doubles other = ExactDecoder(made.tensors, made.options).logits(both);
  both.insert(both.end(), ids.begin() + 12, ids.end());
  KeyValueCache first(decoder.cache_shape(), 20);
  whole.truncate(12);
  const std::vector<float> logits = run(decoder, both, {0, 9, 17}, {&first, &whole});
  CHECK(furthest(other.data() + 8 * kVocabulary, {logits.begin(), logits.begin() + kVocabulary}) < kTolerance);
  CHECK(furthest(exact.data() + 19 * kVocabulary, {logits.begin() + kVocabulary, logits.end()}) < kTolerance);
}

/// Longer than what goes through the layers together.
void computes_in_pieces(const SmallDecoder& made) {
  const AlignedBytes file = compiled(made);
  const Decoder decoder(CompiledFile(file.data.get(), file.size));
  const std::vector<std::int32_t> ids = text(650);
  const Doubles exact = ExactDecoder(made.tensors, made.options).logits(ids);
  KeyValueCache first(decoder.cache_shape(), kContext);
  KeyValueCache second(decoder.cache_shape(), kContext);
  std::vector<std::int32_t> both = text(3, 5);
  both.insert(both.end(), ids.begin(), ids.end());
  const std::vector<float> logits = run(decoder, both, {0, 3, 653}, {&first, &second});
  CHECK(furthest(exact.data() + 649 * kVocabulary, {logits.begin() + kVocabulary, logits.end()}) < kTolerance);
  set_pool_threads(3);
  KeyValueCache third(decoder.cache_shape(), kContext);
  CHECK(furthest(exact.data(), run(decoder, ids, {0, 650}, {&third}, LogitsOf::all)) < kTolerance);
  set_pool_threads(1);
}

void caches_hold_what_was_computed(const Decoder& decoder) {
  const std::vector<std::int32_t> ids = text(12);
  KeyValueCache cache(decoder.cache_shape(), 12);
  const std::vector<float> expected = run(decoder, ids, {0, 12}, {&cache});
  KeyValueCache other(decoder.cache_shape(), 40);
  other.copy(cache, 11);
  CHECK(other.tokens() == 11);
  const std::vector<float> again = run(decoder, {ids.back()}, {0, 1}, {&other});
  CHECK(furthest(Doubles(expected.begin(), expected.end()).data(), again) < kTolerance);
  CHECK_THROWS(run(decoder, {1}, {0, 1}, {&cache}), "must have from 1 to 0 new tokens, got 1");
  CHECK_THROWS(cache.truncate(13), "from 0 to the 12 that it holds, got 13");
  CHECK_THROWS(cache.copy(other, 13), "the 12 that the other one holds");
  CHECK_THROWS(KeyValueCache(decoder.cache_shape(), 0), "needs room for a token");

  KeyValueCache stopped(decoder.cache_shape(), 12);
  const std::function<void()> stop = [] { throw std::runtime_error("stopped"); };
  const std::vector<std::int64_t> offsets{0, 12};
  KeyValueCache* const caches[] = {&stopped};
  std::vector<float> logits(kVocabulary);
  const auto run_stopped = [&] {
    decoder.run({ids.data(), {offsets.data(), 1}, caches, &stop}, LogitsOf::last, logits.data());
  };
  CHECK(check::wrong_throw<std::runtime_error>(run_stopped, "stopped").empty());
  CHECK(stopped.tokens() == 0);
  CHECK(run(decoder, ids, {0, 12}, {&stopped}) == expected);
}

void open(const AlignedBytes& file) { const Decoder decoder(CompiledFile(file.data.get(), file.size)); }

void refuses_what_does_not_fit() {
  const auto with = [](std::uint32_t layer, Role role, Tensor tensor) {
    SmallDecoder made = small_gemma();
    made.tensors[{layer, role}] = std::move(tensor);
    return compiled(made);
  };
  const auto optioned = [](auto change) {
    SmallDecoder made = small_gemma();
    change(made.options);
    return compiled(made);
  };
  const char* shape = "does not fit the tensors around it";
  constexpr Layout layout = Layout::sell_f32;
  CHECK_THROWS(open(with(0, Role::key, sparse_tensor(12, kFeatures, 1, layout))), shape);
  CHECK_THROWS(open(with(1, Role::query, sparse_tensor(24, kFeatures, 1, layout))), "whole heads");
  CHECK_THROWS(open(with(1, Role::down, sparse_tensor(kFeatures, 34, 1, layout))), shape);
  CHECK_THROWS(open(with(0, Role::key_norm_weight, float_tensor(5, 1, 1))), "must have 8 floats");
  CHECK_THROWS(open(with(kNoLayer, Role::rotary, float_tensor(9, 10, 1))), "even number of columns");
  CHECK_THROWS(open(with(kNoLayer, Role::word_embeddings, float_tensor(50, kFeatures, 1))), "must be a packed weight");
  CHECK_THROWS(open(with(kNoLayer, Role::rotary_kinds, float_tensor(2, 1, 1))), "a table that is not there");
  CHECK_THROWS(open(optioned([](auto& options) { options.layers = 3; })), "tensor 13 must have 3 floats");
  CHECK_THROWS(open(optioned([](auto& options) { options.head_dim = 0; })), "negative");
  CHECK_THROWS(open(optioned([](auto& options) { options.norm = 2; })), "unknown norm");
  CHECK_THROWS(open(optioned([](auto& options) { options.parallel = 2; })), "parallel must be 0 or 1");
  CHECK_THROWS(open(optioned([](auto& options) { options.activation = 9; })), "unknown activation function");
  CHECK_THROWS(open(optioned([](auto& options) { options.logit_cap = -1.0F; })), "caps must not be negative");
  CHECK_THROWS(open(optioned([](auto& options) { options.norm_eps = 0.0F; })), "numbers must be finite");
  CHECK_THROWS(open(optioned([](auto& options) { options.reserved = 1; })), "reserved");
  const AlignedBytes encoder = compiled(small_encoder(layout), small_options());
  CHECK_THROWS(open(encoder), "no decoder; open an encoder with Encoder");
}

}  // namespace

int main() {
  set_pool_threads(1);
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const SmallDecoder& made : {small_llama(), small_gemma(), small_neox(), small_olmo()}) computes(made);
  }
  computes_in_pieces(small_gemma());
  const AlignedBytes file = compiled(small_llama());
  const Decoder decoder(CompiledFile(file.data.get(), file.size));
  caches_hold_what_was_computed(decoder);
  refuses_what_does_not_fit();
  return check::result();
}
