// Session: a text that a decoder continues, with its tokens, their KV cache, and the logits of the last one.
#pragma once

#include <atomic>
#include <exception>
#include <span>
#include <vector>

#include "../operators/sampling.h"
#include "decoder.h"

namespace sparsekit {

/// Thrown by a call that `Session::stop` ended.
class Stopped : public std::exception {
 public:
  const char* what() const noexcept override { return "the session was stopped"; }
};

/// Sessions of one decoder may be used in several threads; one session in one at a time, but for `stop`.
class Session {
 public:
  /// Room for `capacity` tokens; 0: as many as the decoder has positions for. The decoder must stay. Throws
  /// std::invalid_argument for more than that.
  Session(const Decoder& decoder, std::int64_t capacity);

  std::int64_t capacity() const { return cache_.capacity(); }
  std::span<const std::int32_t> ids() const { return ids_; }

  /// Appends a prompt, or more of it. All or nothing: where it throws, the session is as it was. Throws
  /// std::invalid_argument for no ids, for those that the model does not have, and for more than there is room for;
  /// Stopped.
  void feed(std::span<const std::int32_t> ids);

  /// Appends one token to each of several sessions, as one batch: ids[sessions]. Throws as `feed`, and
  /// std::invalid_argument where a session is given twice or is of another decoder.
  static void step(std::span<Session* const> sessions, const std::int32_t* ids);

  /// Of the last token, [vocabulary]. Throws std::invalid_argument where nothing was appended since the start or since
  /// `truncate`.
  std::span<const float> logits() const;

  /// The next token, which is not appended. Its random number depends on the seed and on the tokens that were appended
  /// by `step` since `feed`. Throws as `logits` and `Sampler`.
  std::int32_t sample(const SamplingOptions& options, std::uint64_t seed) const;

  /// Keeps only the first `count` tokens. Throws std::invalid_argument if there are fewer.
  void truncate(std::int64_t count);

  /// Ends the current call, or the next one, with Stopped. May be called from any thread.
  void stop() { stopped_.store(true); }

 private:
  static void append(std::span<Session* const> sessions, const std::int32_t* ids, const Sequences& sequences);
  static void run(std::span<Session* const> sessions, const std::int32_t* ids, const Sequences& sequences,
                  float* logits);
  void check_stop();

  const Decoder& decoder_;
  KeyValueCache cache_;
  std::vector<std::int32_t> ids_;
  std::vector<float> logits_;      // empty where there are none
  std::size_t prompt_tokens_ = 0;  // up to the end of the last `feed`
  std::atomic<bool> stopped_{false};
};

}  // namespace sparsekit
