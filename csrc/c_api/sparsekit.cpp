// The C interface: exceptions become statuses and text.
#include "include/sparsekit.h"

#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>

#include "model/encoder.h"
#include "model/mapped_file.h"
#include "operators/instruction_set.h"
#include "threading/pool.h"

using namespace sparsekit;

struct sparsekit_model {
  std::unique_ptr<MappedFile> file;  // null for bytes of the caller
  Encoder encoder;

  explicit sparsekit_model(std::unique_ptr<MappedFile> mapped)
      : file(std::move(mapped)), encoder(CompiledFile(file->data(), file->bytes())) {}
  sparsekit_model(const void* data, std::size_t bytes)
      : encoder(CompiledFile(static_cast<const std::byte*>(data), bytes)) {}
};

namespace {

struct Error {
  char* text;
  std::size_t bytes;

  sparsekit_status operator()(sparsekit_status status, const char* why) const {
    if (text != nullptr && bytes > 0) std::snprintf(text, bytes, "%s", why);
    return status;
  }
};

/// What `body` throws, as a status.
template <class Body>
sparsekit_status caught(const Error& error, const Body& body) {
  try {
    body();
    return SPARSEKIT_OK;
  } catch (const std::invalid_argument& why) {
    return error(SPARSEKIT_INVALID, why.what());
  } catch (const std::system_error& why) {
    return error(SPARSEKIT_UNAVAILABLE, why.what());
  } catch (const KernelUnavailable& why) {
    return error(SPARSEKIT_UNAVAILABLE, why.what());
  } catch (const std::bad_alloc&) {
    return error(SPARSEKIT_OUT_OF_MEMORY, "out of memory; run fewer tokens at a time");
  } catch (const std::exception& why) {
    return error(SPARSEKIT_FAILED, why.what());
  } catch (...) {
    return error(SPARSEKIT_FAILED, "unknown error");
  }
}

void require(bool given, const char* what) {
  if (!given) throw std::invalid_argument(std::string(what) + " must not be NULL");
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
  const Encoder& encoder = model->encoder;
  return {encoder.features(), encoder.vocabulary(), encoder.max_tokens(),
          encoder.types(),    encoder.outputs(),    static_cast<sparsekit_task>(encoder.task())};
}

sparsekit_status sparsekit_run(const sparsekit_model* model, const std::int32_t* ids, const std::int32_t* types,
                               const std::int64_t* offsets, std::int64_t sequences, float* hidden, char* error,
                               std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] { model->encoder.run(input_of(ids, types, offsets, sequences), hidden); });
}

sparsekit_status sparsekit_encode(const sparsekit_model* model, const std::int32_t* ids, const std::int32_t* types,
                                  const std::int64_t* offsets, std::int64_t sequences, float* output, char* error,
                                  std::size_t error_bytes) {
  return caught({error, error_bytes}, [&] { model->encoder.encode(input_of(ids, types, offsets, sequences), output); });
}
