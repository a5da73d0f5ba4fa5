// The C interface to sessions of decoders.
#include "model/session.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "caught.h"
#include "model.h"

using namespace sparsekit;

struct sparsekit_session {
  Session session;
};

namespace {

const Decoder& decoder_of(const sparsekit_model* model) {
  require(model != nullptr, "the model");
  if (model->decoder == nullptr) {
    throw std::invalid_argument(
        "the model is an encoder, which has no sessions; use sparsekit_run or sparsekit_encode");
  }
  return *model->decoder;
}

template <class Given>
auto& session_of(Given* given) {
  require(given != nullptr, "the session");
  return given->session;
}

void check_positive(std::int64_t count, const char* what) {
  if (count < 1) throw std::invalid_argument(std::string(what) + " must be at least 1, got " + std::to_string(count));
}

std::vector<Session*> sessions_of(sparsekit_session* const* sessions, std::int64_t count) {
  check_positive(count, "the number of sessions");
  require(sessions != nullptr, "sessions");
  std::vector<Session*> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(&session_of(sessions[i]));
  return all;
}

}  // namespace

sparsekit_session* sparsekit_session_open(const sparsekit_model* model, std::int64_t capacity, char* error,
                                          std::size_t error_bytes) {
  sparsekit_session* session = nullptr;
  caught({error, error_bytes}, [&] { session = new sparsekit_session{{decoder_of(model), capacity}}; });
  return session;
}

void sparsekit_session_close(sparsekit_session* session) { delete session; }

sparsekit_status sparsekit_feed(sparsekit_session* session, const std::int32_t* ids, std::int64_t count, char* error,
                                std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] {
    Session& fed = session_of(session);
    check_positive(count, "the number of ids");
    require(ids != nullptr, "ids");
    fed.feed({ids, static_cast<std::size_t>(count)});
  });
}

sparsekit_status sparsekit_step(sparsekit_session* const* sessions, const std::int32_t* ids, std::int64_t count,
                                char* error, std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] {
    const std::vector<Session*> all = sessions_of(sessions, count);
    require(ids != nullptr, "ids");
    Session::step(all, ids);
  });
}

sparsekit_status sparsekit_logits(const sparsekit_session* session, const float** logits, char* error,
                                  std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] {
    require(logits != nullptr, "logits");
    *logits = session_of(session).logits().data();
  });
}

sparsekit_sampling sparsekit_greedy(void) {
  const SamplingOptions options;
  return {options.temperature, options.top_k, options.top_p, options.min_p, options.repetition_penalty, 0};
}

sparsekit_status sparsekit_sample(const sparsekit_session* session, const sparsekit_sampling* sampling,
                                  std::int32_t* id, char* error, std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] {
    const Session& sampled = session_of(session);
    require(id != nullptr, "id");
    const sparsekit_sampling given = sampling == nullptr ? sparsekit_greedy() : *sampling;
    *id = sampled.sample({given.temperature, given.top_k, given.top_p, given.min_p, given.repetition_penalty},
                         given.seed);
  });
}

void sparsekit_stop(sparsekit_session* session) {
  if (session != nullptr) session->session.stop();
}

std::int64_t sparsekit_tokens(const sparsekit_session* session) {
  return session == nullptr ? 0 : static_cast<std::int64_t>(session->session.ids().size());
}

std::int64_t sparsekit_capacity(const sparsekit_session* session) {
  return session == nullptr ? 0 : session->session.capacity();
}

sparsekit_status sparsekit_truncate(sparsekit_session* session, std::int64_t count, char* error,
                                    std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] { session_of(session).truncate(count); });
}
