// The C interface to models and to encoders.
#include "include/sparsekit.h"

#include <memory>
#include <stdexcept>

#include "caught.h"
#include "model.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

const Encoder& encoder_of(const sparsekit_model* model) {
  require(model != nullptr, "the model");
  if (model->encoder == nullptr) {
    throw std::invalid_argument("the model is a decoder, which has no hidden states; use sparsekit_session_open");
  }
  return *model->encoder;
}

EncoderInput input_of(const std::int32_t* ids, const std::int32_t* types, const std::int64_t* offsets,
                      std::int64_t sequences) {
  require(offsets != nullptr, "offsets");
  return {ids, types, {offsets, sequences}};
}

template <class... Given>
sparsekit_model* opened(const Error& error, Given&&... given) {
  sparsekit_model* model = nullptr;
  caught(error, [&] { model = new sparsekit_model(std::forward<Given>(given)...); });
  return model;
}

}  // namespace

const char* sparsekit_version(void) { return SPARSEKIT_VERSION; }

sparsekit_status sparsekit_set_threads(std::int32_t count, char* error, std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] { set_pool_threads(count); });
}

sparsekit_model* sparsekit_open(const char* path, char* error, std::size_t error_bytes) {
  std::unique_ptr<MappedFile> file;
  const sparsekit_status status = caught({error, error_bytes}, [&] {
    require(path != nullptr, "the path");
    file = std::make_unique<MappedFile>(path);
  });
  return status == SPARSEKIT_OK ? opened({error, error_bytes}, std::move(file)) : nullptr;
}

sparsekit_model* sparsekit_open_memory(const void* data, std::size_t bytes, char* error, std::size_t error_bytes) {
  return opened({error, error_bytes}, data, bytes);
}

void sparsekit_close(sparsekit_model* model) { delete model; }

sparsekit_description sparsekit_describe(const sparsekit_model* model) {
  if (model == nullptr) return {};
  if (model->decoder != nullptr) {
    return {
        0, model->decoder->vocabulary(), model->decoder->max_tokens(), 0, 0, SPARSEKIT_EMBEDDING, SPARSEKIT_DECODER};
  }
  const Encoder& encoder = *model->encoder;
  return {encoder.features(), encoder.vocabulary(), encoder.max_tokens(),
          encoder.types(),    encoder.outputs(),    static_cast<sparsekit_task>(encoder.task()),
          SPARSEKIT_ENCODER};
}

sparsekit_status sparsekit_run(const sparsekit_model* model, const std::int32_t* ids, const std::int32_t* types,
                               const std::int64_t* offsets, std::int64_t sequences, float* hidden, char* error,
                               std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] { encoder_of(model).run(input_of(ids, types, offsets, sequences), hidden); });
}

sparsekit_status sparsekit_encode(const sparsekit_model* model, const std::int32_t* ids, const std::int32_t* types,
                                  const std::int64_t* offsets, std::int64_t sequences, float* output, char* error,
                                  std::size_t error_bytes) {
  return caught({error, error_bytes},
                [&] { encoder_of(model).encode(input_of(ids, types, offsets, sequences), output); });
}
