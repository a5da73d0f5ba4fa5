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
 * Threads: any number of threads may use one model at the same time. The threads of the pool are shared by the process:
 * while one call uses them, others run on the thread that calls. sparsekit_close must come after all other calls.
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

typedef enum {
  SPARSEKIT_OK = 0,
  SPARSEKIT_INVALID = 1,     /* an argument, or the file, is not what it must be */
  SPARSEKIT_UNAVAILABLE = 2, /* the file cannot be read, or the processor lacks what SPARSEKIT_ISA names */
  SPARSEKIT_OUT_OF_MEMORY = 3,
  SPARSEKIT_FAILED = 4 /* anything else */
} sparsekit_status;

/* What a model gives besides hidden states. */
typedef enum {
  SPARSEKIT_EMBEDDING = 0,           /* one for each sequence */
  SPARSEKIT_CLASSIFICATION = 1,      /* logits of each sequence */
  SPARSEKIT_TOKEN_CLASSIFICATION = 2 /* logits of each token */
} sparsekit_task;

typedef struct {
  int64_t features;   /* of hidden states */
  int64_t vocabulary; /* ids are below */
  int64_t max_tokens; /* of a sequence */
  int64_t types;      /* token types are below; 0: the model has none */
  int64_t outputs;    /* of what sparsekit_encode gives; 0: the model gives hidden states alone */
  sparsekit_task task;
} sparsekit_description;

/* Version of the library, as "0.1". */
SPARSEKIT_API const char* sparsekit_version(void);

/* Threads of the pool from the next call on, the one that calls among them; at first as many processors as the affinity
 * mask and the container's quota leave, or SPARSEKIT_NUM_THREADS. */
SPARSEKIT_API sparsekit_status sparsekit_set_threads(int32_t count, char* error, size_t error_bytes);

/* Maps a compiled model and checks all of it; NULL where that fails. The file must not change while it is open. */
SPARSEKIT_API sparsekit_model* sparsekit_open(const char* path, char* error, size_t error_bytes);

/* The same of bytes in memory, which stay the caller's and must lie at a multiple of 64 until the model is closed. */
SPARSEKIT_API sparsekit_model* sparsekit_open_memory(const void* data, size_t bytes, char* error, size_t error_bytes);

/* NULL is fine. */
SPARSEKIT_API void sparsekit_close(sparsekit_model* model);

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

#ifdef __cplusplus
}
#endif

#endif
