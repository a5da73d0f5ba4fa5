/* Continues a text, given as token ids, and prints each new id as it comes:
 *   generate MODEL.sparsekit 1 4093 253 --max-tokens 32 --temperature 0.7 --seed 1
 * Ends after --max-tokens, or where the session is full. */
#define _POSIX_C_SOURCE 199309L /* for clock_gettime */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sparsekit.h"

typedef struct {
  int32_t* ids; /* of the prompt */
  int64_t tokens;
  int64_t max_tokens;
  sparsekit_sampling sampling;
} request;

static int failed(const char* what) {
  fprintf(stderr, "%s\n", what);
  return 1;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* 0 where `text` is an integer from 0 to `most`. */
static int read_integer(const char* text, uint64_t most, uint64_t* value) {
  char* end;
  errno = 0;
  *value = strtoull(text, &end, 10);
  return text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *value > most;
}

static int read_option(const char* name, const char* text, request* asked) {
  uint64_t value;
  if (strcmp(name, "--temperature") == 0) {
    char* end;
    asked->sampling.temperature = strtof(text, &end);
    return end == text || *end != '\0';
  }
  if (strcmp(name, "--seed") == 0) return read_integer(text, UINT64_MAX, &asked->sampling.seed);
  if (strcmp(name, "--max-tokens") != 0 || read_integer(text, INT64_MAX, &value) != 0) return 1;
  asked->max_tokens = (int64_t)value;
  return 0;
}

/* 0 where the arguments behind the model make sense; `ids` has room for all of them. */
static int read_request(int argc, char** argv, request* asked) {
  for (int i = 2; i < argc; ++i) {
    uint64_t id;
    if (strncmp(argv[i], "--", 2) == 0) {
      if (i + 1 == argc || read_option(argv[i], argv[i + 1], asked) != 0) return 1;
      ++i;
    } else if (read_integer(argv[i], INT32_MAX, &id) == 0) {
      asked->ids[asked->tokens++] = (int32_t)id;
    } else {
      return 1;
    }
  }
  return 0;
}

/* Prints ids until there are enough, or the session is full. */
static sparsekit_status stream(sparsekit_session* session, const request* asked, char* error, size_t error_bytes) {
  sparsekit_status status = sparsekit_feed(session, asked->ids, asked->tokens, error, error_bytes);
  const double start = seconds();
  int64_t done = 0;
  while (status == SPARSEKIT_OK && done < asked->max_tokens) {
    int32_t id;
    status = sparsekit_sample(session, &asked->sampling, &id, error, error_bytes);
    if (status != SPARSEKIT_OK) break;
    printf("%" PRId32 "\n", id);
    fflush(stdout);
    if (++done == asked->max_tokens || sparsekit_tokens(session) == sparsekit_capacity(session)) break;
    status = sparsekit_step(&session, &id, 1, error, error_bytes);
  }
  /* The first token is the prompt's work. */
  if (done > 1) fprintf(stderr, "%.1f tokens/s\n", (double)(done - 1) / (seconds() - start));
  return status;
}

static int generate(const char* path, const request* asked) {
  char error[256];
  sparsekit_model* model = sparsekit_open(path, error, sizeof error);
  if (model == NULL) return failed(error);
  sparsekit_session* session = sparsekit_session_open(model, 0, error, sizeof error);
  const int wrong = session == NULL || stream(session, asked, error, sizeof error) != SPARSEKIT_OK ? failed(error) : 0;
  sparsekit_session_close(session);
  sparsekit_close(model);
  return wrong;
}

int main(int argc, char** argv) {
  request asked = {NULL, 0, 32, sparsekit_greedy()};
  asked.ids = malloc((size_t)argc * sizeof *asked.ids);
  if (asked.ids == NULL) return failed("out of memory");
  int wrong = argc < 3 || read_request(argc, argv, &asked);
  if (wrong) {
    failed("usage: generate MODEL ID... [--max-tokens N] [--temperature T] [--seed N]");
  } else {
    wrong = generate(argv[1], &asked);
  }
  free(asked.ids);
  return wrong;
}
