// Sessions of the C interface: logits and tokens are the decoder's and the sampler's, in batches and in threads; stops
// and refusals leave a session as it was. With a path it leaves a small compiled decoder there, for examples/c.
#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "check.h"
#include "decoder_families.h"
#include "include/sparsekit.h"
#include "model/decoder.h"
#include "operators/sampling.h"

using namespace sparsekit;

namespace {

using Ids = std::vector<std::int32_t>;

const Ids kPrompt{3, 1, 4, 1, 5, 9, 2, 6};

struct Text {
  char text[160] = "";
  bool has(const std::string& part) const { return std::string(text).find(part) != std::string::npos; }
};

/// A model and what it must compute.
struct Opened {
  AlignedBytes file;
  Decoder decoder;
  sparsekit_model* model;

  explicit Opened(const DecoderFamily& family)
      : file(family.file()),
        decoder(CompiledFile(file.data.get(), file.size)),
        model(sparsekit_open_memory(file.data.get(), file.size, nullptr, 0)) {}
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() { sparsekit_close(model); }

  sparsekit_session* session(std::int64_t capacity = 0) const {
    return sparsekit_session_open(model, capacity, nullptr, 0);
  }

  /// As a session computes: the prompt at once, then token by token.
  Ids continued(const Ids& prompt, std::int64_t count, const SamplingOptions& options, std::uint64_t seed) const {
    KeyValueCache cache(decoder.cache_shape(), kContext);
    Sampler sampler(options, seed);
    std::vector<float> logits(kVocabulary);
    Ids all = prompt;
    Ids given = prompt;
    for (std::int64_t i = 0; i < count; ++i) {
      KeyValueCache* const caches[] = {&cache};
      const std::int64_t offsets[] = {0, static_cast<std::int64_t>(given.size())};
      decoder.run({given.data(), {offsets, 1}, caches}, LogitsOf::last, logits.data());
      given = {sampler.next(logits, all, static_cast<std::uint64_t>(i))};
      all.push_back(given[0]);
    }
    return {all.begin() + static_cast<std::ptrdiff_t>(prompt.size()), all.end()};
  }
};

bool feed(sparsekit_session* session, const Ids& ids) {
  return sparsekit_feed(session, ids.data(), static_cast<std::int64_t>(ids.size()), nullptr, 0) == SPARSEKIT_OK;
}

std::vector<float> logits_of(const sparsekit_session* session) {
  const float* logits = nullptr;
  if (sparsekit_logits(session, &logits, nullptr, 0) != SPARSEKIT_OK) return {};
  return {logits, logits + kVocabulary};
}

/// The next `count` tokens; fewer where something fails.
Ids generated(sparsekit_session* session, std::int64_t count, const sparsekit_sampling* sampling) {
  Ids ids;
  for (std::int64_t i = 0; i < count; ++i) {
    std::int32_t id = -1;
    if (sparsekit_sample(session, sampling, &id, nullptr, 0) != SPARSEKIT_OK) return ids;
    ids.push_back(id);
    if (sparsekit_step(&session, &id, 1, nullptr, 0) != SPARSEKIT_OK) return ids;
  }
  return ids;
}

/// Logits behind the prompt's first token alone.
std::vector<float> logits_of_first(const Opened& opened) {
  sparsekit_session* session = opened.session();
  CHECK(feed(session, {kPrompt[0]}));
  const std::vector<float> logits = logits_of(session);
  sparsekit_session_close(session);
  return logits;
}

void describes(const Opened& opened) {
  const sparsekit_description described = sparsekit_describe(opened.model);
  CHECK(described.kind == SPARSEKIT_DECODER && described.vocabulary == kVocabulary);
  CHECK(described.max_tokens == kContext && described.outputs == 0);
}

void generates(const Opened& opened) {
  sparsekit_session* session = opened.session();
  CHECK(sparsekit_capacity(session) == kContext && feed(session, kPrompt));
  CHECK(generated(session, 12, nullptr) == opened.continued(kPrompt, 12, {}, 0));
  CHECK(sparsekit_tokens(session) == 20);
  const sparsekit_sampling drawn{1.5F, 30, 0.95F, 0.01F, 1.3F, 7};
  CHECK(sparsekit_truncate(session, 0, nullptr, 0) == SPARSEKIT_OK && feed(session, kPrompt));
  const Ids expected = opened.continued(kPrompt, 12, {1.5F, 30, 0.95F, 0.01F, 1.3F}, 7);
  CHECK(expected != opened.continued(kPrompt, 12, {}, 0));
  CHECK(generated(session, 12, &drawn) == expected);
  // Cut behind the prompt and gone on with, the text is the same again.
  CHECK(sparsekit_truncate(session, 12, nullptr, 0) == SPARSEKIT_OK && logits_of(session).empty());
  CHECK(sparsekit_step(&session, &expected[4], 1, nullptr, 0) == SPARSEKIT_OK);
  CHECK(generated(session, 7, &drawn) == Ids(expected.begin() + 5, expected.end()));
  // Cut within the prompt: from there on, numbers are those of a text without one.
  CHECK(sparsekit_truncate(session, 0, nullptr, 0) == SPARSEKIT_OK);
  CHECK(sparsekit_step(&session, &kPrompt[0], 1, nullptr, 0) == SPARSEKIT_OK);
  Sampler sampler({1.5F, 30, 0.95F, 0.01F, 1.3F}, 7);
  CHECK(generated(session, 1, &drawn) == Ids{sampler.next(logits_of_first(opened), {kPrompt.data(), 1}, 1)});
  sparsekit_session_close(session);
}

/// Sessions of different lengths, one of which leaves: the texts of each alone.
void steps_batches(const Opened& opened) {
  constexpr std::size_t kSessions = 3;
  sparsekit_session* sessions[kSessions];
  Ids texts[kSessions];
  for (std::size_t i = 0; i < kSessions; ++i) {
    sessions[i] = opened.session(100);
    CHECK(feed(sessions[i], Ids(kPrompt.begin(), kPrompt.begin() + 2 + 3 * static_cast<std::ptrdiff_t>(i))));
  }
  for (int step = 0; step < 8; ++step) {
    const std::size_t count = step < 5 ? kSessions : 2;
    Ids next(count);
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(sparsekit_sample(sessions[i], nullptr, &next[i], nullptr, 0) == SPARSEKIT_OK);
      texts[i].push_back(next[i]);
    }
    CHECK(sparsekit_step(sessions, next.data(), static_cast<std::int64_t>(count), nullptr, 0) == SPARSEKIT_OK);
  }
  for (std::size_t i = 0; i < kSessions; ++i) {
    const Ids prompt(kPrompt.begin(), kPrompt.begin() + 2 + 3 * static_cast<std::ptrdiff_t>(i));
    CHECK(texts[i] == opened.continued(prompt, i < 2 ? 8 : 5, {}, 0));
    sparsekit_session_close(sessions[i]);
  }
}

void serves_threads(const Opened& opened) {
  constexpr int kThreads = 4;
  std::vector<Ids> found(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      sparsekit_session* session = opened.session();
      if (feed(session, Ids{i, 2 * i + 1})) found[static_cast<std::size_t>(i)] = generated(session, 40, nullptr);
      sparsekit_session_close(session);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads; ++i) {
    CHECK(found[static_cast<std::size_t>(i)] == opened.continued({i, 2 * i + 1}, 40, {}, 0));
  }
}

/// A stop before a call ends that call alone.
void stops(const Opened& opened) {
  Text error;
  sparsekit_session* session = opened.session();
  CHECK(feed(session, kPrompt));
  const std::vector<float> before = logits_of(session);
  sparsekit_stop(session);
  const std::int32_t id = 1;
  CHECK(sparsekit_step(&session, &id, 1, error.text, sizeof error.text) == SPARSEKIT_STOPPED);
  CHECK(error.has("was stopped") && sparsekit_tokens(session) == 8 && same_bits(logits_of(session), before));
  CHECK(sparsekit_step(&session, &id, 1, nullptr, 0) == SPARSEKIT_OK);

  sparsekit_session_close(session);
  sparsekit_stop(nullptr);
}

/// From another thread, before, between or behind the three pieces in which a prompt goes through the layers: the call
/// that it ends leaves the session as it was, so that the prompt has the same logits again.
void stops_from_threads(const Opened& opened) {
  CHECK(sparsekit_set_threads(1, nullptr, 0) == SPARSEKIT_OK);
  const Ids longer(600, 7);
  sparsekit_session* session = opened.session();
  CHECK(feed(session, longer));
  const std::vector<float> expected = logits_of(session);
  for (int round = 0; round < 50; ++round) {
    std::atomic<bool> running{false};
    std::thread stopper([&] {
      while (!running.load()) std::this_thread::yield();
      sparsekit_stop(session);
    });
    sparsekit_status status = SPARSEKIT_OK;
    while (status == SPARSEKIT_OK) {
      CHECK(sparsekit_truncate(session, 0, nullptr, 0) == SPARSEKIT_OK);
      running.store(true);
      status = sparsekit_feed(session, longer.data(), 600, nullptr, 0);
    }
    stopper.join();
    CHECK(status == SPARSEKIT_STOPPED && sparsekit_tokens(session) == 0);
    CHECK(feed(session, longer) && same_bits(logits_of(session), expected));
  }
  sparsekit_session_close(session);
}

void refuses(const Opened& opened) {
  Text error;
  const auto refused = [&](sparsekit_status status, const char* part) {
    return status == SPARSEKIT_INVALID && error.has(part);
  };
  char* const text = error.text;
  constexpr std::size_t bytes = sizeof error.text;
  for (const std::int64_t capacity : {std::int64_t{-1}, kContext + 1}) {
    CHECK(sparsekit_session_open(opened.model, capacity, text, bytes) == nullptr && error.has("from 1 to the 700"));
  }
  CHECK(sparsekit_session_open(nullptr, 0, text, bytes) == nullptr && error.has("model must not be NULL"));
  sparsekit_session* session = opened.session(10);
  std::int32_t id = 0;
  const float* logits = nullptr;
  CHECK(refused(sparsekit_sample(session, nullptr, &id, text, bytes), "no logits"));
  CHECK(refused(sparsekit_logits(session, &logits, text, bytes), "no logits"));
  CHECK(refused(sparsekit_logits(session, nullptr, text, bytes), "logits must not be NULL"));
  CHECK(refused(sparsekit_feed(nullptr, &id, 1, text, bytes), "session must not be NULL"));
  CHECK(refused(sparsekit_feed(session, nullptr, 1, text, bytes), "ids must not be NULL"));
  CHECK(refused(sparsekit_feed(session, &id, 0, text, bytes), "at least 1, got 0"));
  const Ids many(11, 1);
  CHECK(refused(sparsekit_feed(session, many.data(), 11, text, bytes), "from 1 to 10 new tokens, got 11"));
  CHECK(feed(session, kPrompt));
  const std::vector<float> before = logits_of(session);
  for (const std::int32_t wrong : {-1, 50}) {
    CHECK(refused(sparsekit_step(&session, &wrong, 1, text, bytes), "ids must be from 0 to 49"));
  }
  CHECK(refused(sparsekit_step(&session, nullptr, 1, text, bytes), "ids must not be NULL"));
  CHECK(refused(sparsekit_step(nullptr, &id, 1, text, bytes), "sessions must not be NULL"));
  CHECK(refused(sparsekit_step(&session, &id, 0, text, bytes), "number of sessions must be at least 1, got 0"));
  sparsekit_session* const twice[] = {session, session};
  const std::int32_t ids[] = {1, 2};
  CHECK(refused(sparsekit_step(twice, ids, 2, text, bytes), "given twice"));
  const Opened other(gpt2(Layout::sell_f32));
  sparsekit_session* foreign = other.session();
  sparsekit_session* const different[] = {session, foreign};
  CHECK(refused(sparsekit_step(different, ids, 2, text, bytes), "different models"));
  sparsekit_session_close(foreign);
  sparsekit_sampling sampling = sparsekit_greedy();
  sampling.top_p = 1.5F;
  CHECK(refused(sparsekit_sample(session, &sampling, &id, text, bytes), "top_p must be from 0 to 1"));
  CHECK(refused(sparsekit_sample(session, nullptr, nullptr, text, bytes), "id must not be NULL"));
  for (const std::int64_t count : {-1, 9}) CHECK(refused(sparsekit_truncate(session, count, text, bytes), "from 0 to"));
  CHECK(sparsekit_tokens(session) == 8 && same_bits(logits_of(session), before));
  CHECK(sparsekit_truncate(session, 8, text, bytes) == SPARSEKIT_OK && same_bits(logits_of(session), before));
  CHECK(sparsekit_describe(nullptr).vocabulary == 0 && sparsekit_tokens(nullptr) == 0 &&
        sparsekit_capacity(nullptr) == 0);
  sparsekit_session_close(session);
  sparsekit_session_close(nullptr);
}

/// Calls for the other kind of model.
void refuses_kinds(const Opened& opened) {
  Text error;
  const std::int64_t offsets[] = {0, 1};
  const std::int32_t id = 1;
  float output[kVocabulary];
  for (const auto call : {sparsekit_run, sparsekit_encode}) {
    CHECK(call(opened.model, &id, nullptr, offsets, 1, output, error.text, sizeof error.text) == SPARSEKIT_INVALID);
    CHECK(error.has("the model is a decoder"));
  }
  const AlignedBytes file = compiled(small_encoder(Layout::sell_f32), small_options());
  sparsekit_model* encoder = sparsekit_open_memory(file.data.get(), file.size, nullptr, 0);
  CHECK(sparsekit_describe(encoder).kind == SPARSEKIT_ENCODER);
  CHECK(sparsekit_session_open(encoder, 0, error.text, sizeof error.text) == nullptr);
  CHECK(error.has("the model is an encoder"));
  sparsekit_close(encoder);
}

void refuses_nan() {
  DecoderFamily family = llama(Layout::sell_f32);
  std::vector<float> weights(kFeatures, std::numeric_limits<float>::quiet_NaN());
  family.of(Role::final_norm_weight) = floats_of(kFeatures, 1, weights);
  const Opened opened(family);
  CHECK(opened.model != nullptr);
  sparsekit_session* session = opened.session();
  CHECK(feed(session, kPrompt));
  Text error;
  std::int32_t id = -1;
  CHECK(sparsekit_sample(session, nullptr, &id, error.text, sizeof error.text) == SPARSEKIT_FAILED);
  CHECK(error.has("NaN") && id == -1);
  sparsekit_session_close(session);
}

}  // namespace

int main(int count, char** arguments) {
  const DecoderFamily family = llama(Layout::sell_f32);
  if (count > 1) {
    const AlignedBytes file = family.file();
    std::ofstream(arguments[1], std::ios::binary)
        .write(reinterpret_cast<const char*>(file.data.get()), static_cast<std::streamsize>(file.size));
  }
  const Opened opened(family);
  CHECK(opened.model != nullptr);
  describes(opened);
  generates(opened);
  steps_batches(opened);
  serves_threads(opened);
  stops(opened);
  stops_from_threads(opened);
  refuses(opened);
  refuses_kinds(opened);
  refuses_nan();
  return check::result();
}
