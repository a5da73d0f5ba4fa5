/* Embeds a sentence, given as token ids: embed MODEL.sparsekit 101 7592 102 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sparsekit.h"

static int failed(const char* what) {
  fprintf(stderr, "%s\n", what);
  return 1;
}

/* The vector of a sequence on one line; 0 where that went well. */
static int print_vector(const sparsekit_model* model, const int32_t* ids, int64_t tokens) {
  char error[256];
  const int64_t outputs = sparsekit_describe(model).outputs;
  const int64_t offsets[] = {0, tokens};
  float* vector = malloc((size_t)outputs * sizeof *vector);
  if (vector == NULL) return failed("out of memory");
  if (sparsekit_encode(model, ids, NULL, offsets, 1, vector, error, sizeof error) != SPARSEKIT_OK) {
    free(vector);
    return failed(error);
  }
  for (int64_t f = 0; f < outputs; ++f) printf("%.9g%c", (double)vector[f], f + 1 < outputs ? ' ' : '\n');
  free(vector);
  return 0;
}

int main(int argc, char** argv) {
  char error[256];
  if (argc < 3) return failed("usage: embed MODEL ID...");
  sparsekit_model* model = sparsekit_open(argv[1], error, sizeof error);
  if (model == NULL) return failed(error);
  const int64_t tokens = argc - 2;
  int32_t* ids = malloc((size_t)tokens * sizeof *ids);
  if (ids == NULL) return failed("out of memory");
  for (int64_t i = 0; i < tokens; ++i) ids[i] = (int32_t)strtol(argv[i + 2], NULL, 10);
  const int status = print_vector(model, ids, tokens);
  free(ids);
  sparsekit_close(model);
  return status;
}
