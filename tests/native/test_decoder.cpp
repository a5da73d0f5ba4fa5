// Whole decoders with every instruction set against double precision: texts at once, token by token, in batches and in
// pieces, for every number of threads, over caches that are cut and copied.
#include "check.h"
#include "exact_decoder.h"
#include "model/decoder.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

using Ids = std::vector<std::int32_t>;

/// Logits are about 1, of sums that have up to 40 terms: 5e-5 is about 420 roundings of the last bit.
constexpr double kTolerance = 5e-5;
/// More than 256, which one thread sends through the layers together.
constexpr std::int64_t kLong = 600;
/// A last bit of a float may put its rounding to 8 or 16 bits one step further, of one key or value in many.
constexpr double kFlipped = 5e-3;

Ids text(std::int64_t tokens, std::int64_t seed = 0) {
  Ids ids;
  for (std::int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * 31 + seed + i / 7) % kVocabulary));
  }
  return ids;
}

Ids part(const Ids& ids, std::int64_t first, std::int64_t behind) {
  return {ids.begin() + first, ids.begin() + behind};
}

Ids joined(Ids one, const Ids& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

/// A model in memory, its decoder, and its exact logits.
struct Opened {
  DecoderFamily family;
  AlignedBytes file;
  Decoder decoder;

  explicit Opened(DecoderFamily made)
      : family(std::move(made)), file(family.file()), decoder(CompiledFile(file.data.get(), file.size)) {}

  KeyValueCache cache(std::int64_t capacity, DType dtype = DType::float32) const {
    return {decoder.cache_shape(), capacity, dtype};
  }
  Doubles exact(const Ids& ids, DType dtype = DType::float32) const {
    return ExactDecoder(family.tensors, family.options, dtype).logits(ids);
  }

  std::vector<float> run(const Ids& ids, std::vector<std::int64_t> offsets, std::vector<KeyValueCache*> caches,
                         LogitsOf which = LogitsOf::last, const std::function<void()>* between = nullptr) const {
    const std::size_t rows = which == LogitsOf::all ? ids.size() : caches.size();
    std::vector<float> logits(rows * kVocabulary, 7.0F);
    const Sequences sequences{offsets.data(), static_cast<std::int64_t>(caches.size())};
    decoder.run({ids.data(), sequences, caches.data(), between}, which, logits.data());
    return logits;
  }
  std::vector<float> run(const Ids& ids, KeyValueCache& cache, LogitsOf which = LogitsOf::last) const {
    return run(ids, {0, static_cast<std::int64_t>(ids.size())}, {&cache}, which);
  }
};

/// Of rows of `found` from `row` on, those from `first` on of the exact ones.
double furthest(const Doubles& exact, std::int64_t first, const std::vector<float>& found, std::int64_t row = 0,
                std::int64_t rows = 1) {
  double most = 0.0;
  for (std::int64_t i = 0; i < rows * kVocabulary; ++i) {
    const double expected = exact[static_cast<std::size_t>(first * kVocabulary + i)];
    const double difference = expected - static_cast<double>(found[static_cast<std::size_t>(row * kVocabulary + i)]);
    most = std::isnan(difference) ? INFINITY : std::max(most, std::fabs(difference));
  }
  return most;
}

void computes(const Opened& model, const std::string& name) {
  const Ids ids = text(20);
  const Doubles exact = model.exact(ids);
  KeyValueCache whole = model.cache(20);
  CHECK_CASE(furthest(exact, 0, model.run(ids, whole, LogitsOf::all), 0, 20) < kTolerance, name + " at once");
  CHECK(whole.tokens() == 20);

  KeyValueCache stepped = model.cache(33);
  model.run(part(ids, 0, 6), stepped);
  for (std::int64_t t = 6; t < 20; ++t) {
    CHECK_CASE(furthest(exact, t, model.run(part(ids, t, t + 1), stepped)) < kTolerance, name + " by tokens");
  }

  const Ids other = text(9, 3);
  KeyValueCache first = model.cache(20);
  whole.truncate(12);
  const auto logits = model.run(joined(other, part(ids, 12, 20)), {0, 9, 17}, {&first, &whole});
  CHECK_CASE(furthest(model.exact(other), 8, logits) < kTolerance, name + " in a batch");
  CHECK_CASE(furthest(exact, 19, logits, 1) < kTolerance, name + " in a batch, from a cache");
}

/// A text that is too long to go through the layers at once, alone and behind a short one that goes with its first
/// part.
void computes_in_pieces(const Opened& model, const std::string& name) {
  const Ids ids = text(kLong);
  const Ids small = text(3, 5);
  const Doubles exact = model.exact(ids);
  KeyValueCache alone = model.cache(kContext);
  CHECK_CASE(furthest(exact, 0, model.run(ids, alone, LogitsOf::all), 0, kLong) < kTolerance, name + " in pieces");
  KeyValueCache first = model.cache(kContext);
  KeyValueCache second = model.cache(kContext);
  KeyValueCache third = model.cache(kContext);
  const auto logits =
      model.run(joined(joined(small, ids), small), {0, 3, 3 + kLong, 6 + kLong}, {&first, &second, &third});
  const Doubles exact_small = model.exact(small);
  CHECK_CASE(furthest(exact_small, 2, logits) < kTolerance, name + " before pieces");
  CHECK_CASE(furthest(exact, kLong - 1, logits, 1) < kTolerance, name + " in pieces of a batch");
  CHECK_CASE(furthest(exact_small, 2, logits, 2) < kTolerance, name + " behind pieces");
  CHECK(first.tokens() == 3 && second.tokens() == kLong && third.tokens() == 3);
}

/// A text, then a token of each of three.
std::vector<float> answers(const Opened& model, std::int64_t tokens) {
  KeyValueCache cache = model.cache(kContext);
  std::vector<float> found = model.run(text(tokens), cache, LogitsOf::all);
  KeyValueCache second = model.cache(kContext);
  KeyValueCache third = model.cache(40);
  const auto first_ones = model.run(joined(text(100, 1), text(30, 2)), {0, 100, 130}, {&second, &third});
  const auto next = model.run({3, 4, 5}, {0, 1, 2, 3}, {&cache, &second, &third});
  found.insert(found.end(), first_ones.begin(), first_ones.end());
  found.insert(found.end(), next.begin(), next.end());
  return found;
}

void has_the_same_bits_for_every_number_of_threads(const Opened& model, const std::string& name) {
  const std::vector<float> short_ones = answers(model, 200);
  const std::vector<float> long_ones = answers(model, kLong);
  for (const int threads : {2, 7}) {
    set_pool_threads(threads);
    CHECK_CASE(same_bits(answers(model, 200), short_ones), name + ", short, threads: " + std::to_string(threads));
    CHECK_CASE(same_bits(answers(model, kLong), long_ones), name + ", long, threads: " + std::to_string(threads));
  }
  set_pool_threads(1);
}

void caches_hold_what_was_computed(const Opened& model) {
  const Ids ids = text(12);
  KeyValueCache cache = model.cache(12);
  const Doubles exact = model.exact(ids);
  const std::vector<float> expected = model.run(ids, cache);
  KeyValueCache other = model.cache(40);
  other.copy(cache, 11);
  CHECK(other.tokens() == 11 && other.capacity() == 40 && cache.tokens() == 12);
  CHECK(furthest(exact, 11, model.run(part(ids, 11, 12), other)) < kTolerance);
  cache.truncate(0);
  CHECK(same_bits(model.run(ids, cache), expected));
  KeyValueCache little = model.cache(5);
  little.copy(cache, 5);
  CHECK(little.tokens() == 5);

  CHECK_THROWS(model.run({1}, cache), "must have from 1 to 0 new tokens, got 1");
  CHECK_THROWS(cache.truncate(13), "from 0 to the 12 that it holds, got 13");
  CHECK_THROWS(cache.truncate(-1), "got -1");
  CHECK_THROWS(other.copy(cache, 13), "the 12 that the other one holds");
  CHECK_THROWS(little.copy(cache, 6), "the 5 that there is room for");
  CHECK_THROWS(model.cache(0), "needs room for 1 to ");
  CHECK_THROWS(model.cache(std::int64_t{1} << 57), "needs room for 1 to ");
  CHECK(cache.tokens() == 12 && other.tokens() == 12 && little.tokens() == 5);
}

/// How far the logits of a text may be from exact ones where keys and values have 16 or 8 bits, of the largest of them.
struct Rounding {
  DType dtype;
  double mean;
  double furthest;
};
constexpr Rounding kRoundings[] = {{DType::bfloat16, 2e-3, 0.03}, {DType::int8, 4e-3, 0.08}};

void is_close_to_exact(const Doubles& exact, const Doubles& rounded, const Rounding& rounding,
                       const std::string& name) {
  double sum = 0.0;
  double most = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    sum += std::fabs(exact[i] - rounded[i]);
    most = std::max(most, std::fabs(exact[i] - rounded[i]));
    largest = std::max(largest, std::fabs(exact[i]));
  }
  CHECK_CASE(sum / static_cast<double>(exact.size()) < rounding.mean * largest && most < rounding.furthest * largest,
             name + ", " + std::to_string(most) + " from logits up to " + std::to_string(largest));
}

/// Of rounded keys and values, however tokens come: at once, one by one, in a batch, in pieces, copied.
void rounds_keys_and_values(const Opened& model, const Rounding& rounding, const std::string& name) {
  const Ids ids = text(kLong);
  const Ids other = text(9, 3);
  const Doubles exact = model.exact(ids, rounding.dtype);
  is_close_to_exact(model.exact(ids), exact, rounding, name);
  KeyValueCache whole = model.cache(kContext, rounding.dtype);
  CHECK_CASE(furthest(exact, 0, model.run(ids, whole, LogitsOf::all), 0, kLong) < kFlipped, name);

  KeyValueCache stepped = model.cache(30, rounding.dtype);
  model.run(part(ids, 0, 6), stepped);
  for (std::int64_t t = 6; t < 20; ++t) {
    CHECK_CASE(furthest(exact, t, model.run(part(ids, t, t + 1), stepped)) < kFlipped, name + " by tokens");
  }
  KeyValueCache copied = model.cache(kContext, rounding.dtype);
  KeyValueCache first = model.cache(20, rounding.dtype);
  copied.copy(stepped, 12);
  const auto logits = model.run(joined(other, part(ids, 12, kLong)), {0, 9, 9 + kLong - 12}, {&first, &copied});
  CHECK_CASE(furthest(exact, kLong - 1, logits, 1) < kFlipped, name + " in a batch, from a copy");
}

/// Throws when it is called for the `calls`th time.
std::function<void()> stop_at(int calls) {
  return [calls, count = 0]() mutable {
    if (++count == calls) throw std::runtime_error("stopped");
  };
}

void stops_between_layers(const Opened& model) {
  const Ids ids = text(kLong);
  const std::vector<std::int64_t> offsets{0, kLong - 10};
  KeyValueCache cache = model.cache(kContext);
  KeyValueCache expected = model.cache(kContext);
  model.run(part(ids, 0, 10), cache);
  model.run(part(ids, 0, 10), expected);
  for (const int calls : {1, 2, 3, 4}) {
    const auto stop = stop_at(calls);
    const auto stopped = [&] { return model.run(part(ids, 10, kLong), offsets, {&cache}, LogitsOf::last, &stop); };
    CHECK_THROWS_AS(std::runtime_error, stopped(), "stopped");
    CHECK(cache.tokens() == 10 + (calls - 1) / kLayers * 256);
    cache.truncate(10);
  }
  CHECK(same_bits(model.run(part(ids, 10, kLong), cache), model.run(part(ids, 10, kLong), expected)));
}

/// Embeddings that are looked up in an int8 weight, and multiplied with inputs that are rounded to 254 steps.
void shares_embeddings_in_int8() {
  Tensor words = sparse_tensor(kVocabulary, kFeatures, 1, Layout::dense_s8);
  for (float& value : words.dense) value = std::round(value * 127.0F) / 127.0F;
  DecoderFamily family = llama(Layout::csr_f32);
  family.of(Role::word_embeddings) = words;
  const Opened model(std::move(family));
  KeyValueCache cache = model.cache(20);
  CHECK(furthest(model.exact(text(20)), 0, model.run(text(20), cache, LogitsOf::all), 0, 20) < 0.05);
}

}  // namespace

int main() {
  set_pool_threads(1);
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const auto& [name, make] : kDecoders) {
      for (const Layout layout : {Layout::csr_f32, Layout::sell_f32}) computes(Opened(make(layout)), isa + " " + name);
      has_the_same_bits_for_every_number_of_threads(Opened(make(Layout::sell_f32)), isa + " " + name);
    }
    shares_embeddings_in_int8();
  }
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    for (const auto& [name, make] : kDecoders) {
      for (const Rounding& rounding : kRoundings) {
        rounds_keys_and_values(Opened(make(Layout::csr_f32)), rounding,
                               isa + " " + name + " " + dtype_entry(rounding.dtype).name);
      }
    }
  }
  for (const auto& [name, make] : kDecoders) computes_in_pieces(Opened(make(Layout::csr_f32)), name);
  const Opened model(gemma(Layout::csr_f32));
  caches_hold_what_was_computed(model);
  stops_between_layers(model);
  return check::result();
}
