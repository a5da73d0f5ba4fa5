#include "session.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

namespace sparsekit {
namespace {

std::int64_t checked_capacity(std::int64_t capacity, std::int64_t most) {
  if (capacity >= 0 && capacity <= most) return capacity == 0 ? most : capacity;
  throw std::invalid_argument("the capacity must be from 1 to the " + std::to_string(most) +
                              " tokens that the model has positions for, or 0 for all of them, got " +
                              std::to_string(capacity));
}

}  // namespace

Session::Session(const Decoder& decoder, std::int64_t capacity)
    : decoder_(decoder), cache_(decoder.cache_shape(), checked_capacity(capacity, decoder.max_tokens())) {
  ids_.reserve(static_cast<std::size_t>(cache_.capacity()));  // so that nothing throws after a computation
  logits_.reserve(static_cast<std::size_t>(decoder.vocabulary()));
}

void Session::check_stop() {
  if (stopped_.exchange(false)) throw Stopped();
}

void Session::feed(std::span<const std::int32_t> ids) {
  Session* const session = this;
  const std::int64_t offsets[] = {0, static_cast<std::int64_t>(ids.size())};
  append({&session, 1}, ids.data(), {offsets, 1});
  prompt_tokens_ = ids_.size();
}

void Session::step(std::span<Session* const> sessions, const std::int32_t* ids) {
  std::vector<Session*> sorted(sessions.begin(), sessions.end());
  std::sort(sorted.begin(), sorted.end(), std::less<>());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    throw std::invalid_argument("a session is given twice; each has one token in a step");
  }
  if (std::any_of(sorted.begin(), sorted.end(), [&](auto* one) { return &one->decoder_ != &sorted[0]->decoder_; })) {
    throw std::invalid_argument("sessions of different models; step those of one model together");
  }
  std::vector<std::int64_t> offsets(sessions.size() + 1);
  std::iota(offsets.begin(), offsets.end(), std::int64_t{0});
  append(sessions, ids, {offsets.data(), static_cast<std::int64_t>(sessions.size())});
}

/// Everything that may throw comes before the first change.
void Session::append(std::span<Session* const> sessions, const std::int32_t* ids, const Sequences& sequences) {
  if (sessions.empty()) return;
  const auto vocabulary = static_cast<std::size_t>(sessions[0]->decoder_.vocabulary());
  std::vector<float> logits(sessions.size() * vocabulary);
  run(sessions, ids, sequences, logits.data());
  for (std::size_t i = 0; i < sessions.size(); ++i) {
    Session& session = *sessions[i];
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(i * vocabulary);
    session.logits_.assign(row, row + static_cast<std::ptrdiff_t>(vocabulary));
    session.ids_.insert(session.ids_.end(), ids + sequences.start(static_cast<std::int64_t>(i)),
                        ids + sequences.start(static_cast<std::int64_t>(i) + 1));
  }
}

/// Computes the logits of all; where that throws, caches are as they were.
void Session::run(std::span<Session* const> sessions, const std::int32_t* ids, const Sequences& sequences,
                  float* logits) {
  std::vector<KeyValueCache*> caches;
  for (Session* session : sessions) caches.push_back(&session->cache_);
  const std::function<void()> check = [&] {
    for (Session* session : sessions) session->check_stop();
  };
  try {
    check();
    sessions[0]->decoder_.run({ids, sequences, caches.data(), &check}, LogitsOf::last, logits);
  } catch (...) {
    for (Session* session : sessions) session->cache_.truncate(static_cast<std::int64_t>(session->ids_.size()));
    throw;
  }
}

std::span<const float> Session::logits() const {
  if (logits_.empty()) throw std::invalid_argument("the session has no logits; feed it ids first");
  return logits_;
}

std::int32_t Session::sample(const SamplingOptions& options, std::uint64_t seed) const {
  return Sampler(options, seed).next(logits(), ids_, ids_.size() - prompt_tokens_);
}

void Session::truncate(std::int64_t count) {
  const bool shorter = count != static_cast<std::int64_t>(ids_.size());
  cache_.truncate(count);
  ids_.resize(static_cast<std::size_t>(count));
  prompt_tokens_ = std::min(prompt_tokens_, ids_.size());
  if (shorter) logits_.clear();
}

}  // namespace sparsekit
