/* sparsekit in C: run compiled models (docs/compiled-model.md) without Python.
 *
 *   char error[256];
 *   sparsekit_model* model = sparsekit_open("minilm.sparsekit", error, sizeof error);
 *   if (model == NULL) { fputs(error, stderr); return 1; }
 *   int64_t offsets[] = {0, tokens};
 *   sparsekit_status status = sparsekit_encode(model, ids, NULL, offsets, 1, vector, error, sizeof error);
 *   sparsekit_close(model);
 *
 * Nothing throws. What can fail returns a status, and says why in `error`: text of at most `error_bytes` bytes with its
 * end, cut where it is longer; `error` may be NULL. Tokens of all sequences lie one after the other, without padding:
 * sequence i has those from offsets[i] to before offsets[i + 1], and offsets[0] is 0.
 *
 * A language model continues texts in sessions. Ids go in, ids come out: a tokenizer is the caller's, and so is the end
 * of a text, since a compiled model does not know its end tokens (eos_token_id of generation_config.json).
 *
 *   sparsekit_session* session = sparsekit_session_open(model, 0, error, sizeof error);
 *   sparsekit_status status = sparsekit_feed(session, ids, tokens, error, sizeof error);
 *   while (status == SPARSEKIT_OK) {
 *     int32_t id;
 *     status = sparsekit_sample(session, NULL, &id, error, sizeof error);
 *     if (status != SPARSEKIT_OK || id == end_token) break;
 *     status = sparsekit_step(&session, &id, 1, error, sizeof error);
 *   }
 *   sparsekit_session_close(session);
 *
 * Threads: any number of threads may use one model at the same time. The threads of the pool are shared by the process:
 * while one call uses them, others run on the thread that calls. sparsekit_close must come after all other calls,
 * and after the sessions of the model are closed. Sessions may be used in several threads at the same time, one session
 * in one thread, but for sparsekit_stop.
 */
#ifndef SPARSEKIT_H
#define SPARSEKIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SPARSEKIT_API
#else
#define SPARSEKIT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sparsekit_model sparsekit_model;
typedef struct sparsekit_session sparsekit_session;

typedef enum {
  SPARSEKIT_OK = 0,
  SPARSEKIT_INVALID = 1,     /* an argument or the file is invalid */
  SPARSEKIT_UNAVAILABLE = 2, /* the file cannot be read, or the processor lacks what SPARSEKIT_ISA names */
  SPARSEKIT_OUT_OF_MEMORY = 3,
  SPARSEKIT_FAILED = 4, /* any other error, such as logits that are NaN */
  SPARSEKIT_STOPPED = 5 /* sparsekit_stop ended the call */
} sparsekit_status;

/* What a model computes besides hidden states. */
typedef enum {
  SPARSEKIT_EMBEDDING = 0,           /* one for each sequence */
  SPARSEKIT_CLASSIFICATION = 1,      /* logits of each sequence */
  SPARSEKIT_TOKEN_CLASSIFICATION = 2 /* logits of each token */
} sparsekit_task;

/* What a model is: encoders have sparsekit_run and sparsekit_encode, decoders (language models) have sessions. */
typedef enum { SPARSEKIT_ENCODER = 0, SPARSEKIT_DECODER = 1 } sparsekit_kind;

typedef struct {
  int64_t features;    /* of hidden states; 0 for a decoder */
  int64_t vocabulary;  /* ids are below this */
  int64_t max_tokens;  /* of a sequence, or of a session */
  int64_t types;       /* token types are below this; 0: the model has none */
  int64_t outputs;     /* of sparsekit_encode; 0: the model only has hidden states */
  sparsekit_task task; /* of an encoder */
  sparsekit_kind kind;
} sparsekit_description;

/* How a token is chosen, as by sparsekit.engine in Python; sparsekit_greedy() says how to take the most probable
 * one. Fields apply in this order: repetition_penalty, temperature, top_k, top_p, min_p. */
typedef struct {
  float temperature;        /* divides logits; 0: the most probable token, without the three filters below */
  int32_t top_k;            /* only tokens whose logit is among the k largest; 0: all */
  float top_p;              /* only the fewest tokens whose probabilities add up to it; 1: all */
  float min_p;              /* only tokens with at least this fraction of the largest probability; 0: all */
  float repetition_penalty; /* divides positive logits of the session's tokens, multiplies negative ones; 1: none */
  uint64_t seed;            /* the same seed gives the same text, in Python too */
} sparsekit_sampling;

/* Version of the library, as "0.1". */
SPARSEKIT_API const char* sparsekit_version(void);

/* Threads of the pool from the next call on, the one that calls among them; at first as many processors as the affinity
 * mask and the container's quota leave, or SPARSEKIT_NUM_THREADS. */
SPARSEKIT_API sparsekit_status sparsekit_set_threads(int32_t count, char* error, size_t error_bytes);

/* Memory-maps a compiled model and checks all of it; NULL on failure. The file must not change while it is open. */
SPARSEKIT_API sparsekit_model* sparsekit_open(const char* path, char* error, size_t error_bytes);

/* The same of bytes in memory, which stay the caller's and must lie at a multiple of 64 until the model is closed. */
SPARSEKIT_API sparsekit_model* sparsekit_open_memory(const void* data, size_t bytes, char* error, size_t error_bytes);

/* NULL is fine. */
SPARSEKIT_API void sparsekit_close(sparsekit_model* model);

/* All zeros for NULL. */
SPARSEKIT_API sparsekit_description sparsekit_describe(const sparsekit_model* model);

/* Hidden states of the last layer: hidden[tokens][features]. `types` holds token types, or is NULL for 0. */
SPARSEKIT_API sparsekit_status sparsekit_run(const sparsekit_model* model, const int32_t* ids, const int32_t* types,
                                             const int64_t* offsets, int64_t sequences, float* hidden, char* error,
                                             size_t error_bytes);

/* What the model gives besides hidden states: vectors, pooled and normalized as it says, or logits,
 * output[sequences][outputs]; for SPARSEKIT_TOKEN_CLASSIFICATION output[tokens][outputs]. */
SPARSEKIT_API sparsekit_status sparsekit_encode(const sparsekit_model* model, const int32_t* ids, const int32_t* types,
                                                const int64_t* offsets, int64_t sequences, float* output, char* error,
                                                size_t error_bytes);

/* A session of a decoder, with room for `capacity` tokens, at most max_tokens; 0 for all of those. Memory is taken as
 * tokens come. NULL where that fails. */
SPARSEKIT_API sparsekit_session* sparsekit_session_open(const sparsekit_model* model, int64_t capacity, char* error,
                                                        size_t error_bytes);

/* NULL is fine. */
SPARSEKIT_API void sparsekit_session_close(sparsekit_session* session);

/* Appends a prompt, or more of it, and computes the logits of its last token. Where it fails the session is as it
 * was. */
SPARSEKIT_API sparsekit_status sparsekit_feed(sparsekit_session* session, const int32_t* ids, int64_t count,
                                              char* error, size_t error_bytes);

/* Appends one token to each of `count` sessions of one model, ids[count], as one batch: sessions may join and leave
 * between steps. Where it fails, or one of them is stopped, all are as they were. */
SPARSEKIT_API sparsekit_status sparsekit_step(sparsekit_session* const* sessions, const int32_t* ids, int64_t count,
                                              char* error, size_t error_bytes);

/* Logits of the last token, [vocabulary], as the model gives them: NaN is not refused here. They stay until the next
 * call that changes the session. */
SPARSEKIT_API sparsekit_status sparsekit_logits(const sparsekit_session* session, const float** logits, char* error,
                                                size_t error_bytes);

/* The most probable token, without a penalty: start from it and set what differs. */
SPARSEKIT_API sparsekit_sampling sparsekit_greedy(void);

/* Chooses the next token, which is not appended yet; `sampling` may be NULL for sparsekit_greedy(). Logits that hold
 * NaN or infinity give SPARSEKIT_FAILED. The random number depends on the seed and on how many tokens sparsekit_step
 * has appended since the last sparsekit_feed: asked again, it chooses the same token. */
SPARSEKIT_API sparsekit_status sparsekit_sample(const sparsekit_session* session, const sparsekit_sampling* sampling,
                                                int32_t* id, char* error, size_t error_bytes);

/* Ends the call of the session that is being computed, between layers, with SPARSEKIT_STOPPED; where there is none, the
 * next sparsekit_feed or sparsekit_step. For any thread, while the session is open. */
SPARSEKIT_API void sparsekit_stop(sparsekit_session* session);

/* Tokens so far; 0 for NULL, as the next one. */
SPARSEKIT_API int64_t sparsekit_tokens(const sparsekit_session* session);

/* Tokens that there is room for in all. */
SPARSEKIT_API int64_t sparsekit_capacity(const sparsekit_session* session);

/* Keeps the first `count` tokens alone; 0 starts again. With fewer than there were, logits are gone until the next
 * sparsekit_feed or sparsekit_step. */
SPARSEKIT_API sparsekit_status sparsekit_truncate(sparsekit_session* session, int64_t count, char* error,
                                                  size_t error_bytes);

#ifdef __cplusplus
}
#endif

#endif
