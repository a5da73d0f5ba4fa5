// The implementation of sparsekit_model.
#pragma once

#include <cstddef>
#include <memory>

#include "include/sparsekit.h"
#include "model/decoder.h"
#include "model/encoder.h"
#include "model/mapped_file.h"

struct sparsekit_model {
  std::unique_ptr<sparsekit::MappedFile> file;  // null for bytes of the caller
  std::unique_ptr<sparsekit::Encoder> encoder;  // null for a decoder
  std::unique_ptr<sparsekit::Decoder> decoder;  // null for an encoder

  explicit sparsekit_model(std::unique_ptr<sparsekit::MappedFile> mapped)
      : sparsekit_model(mapped->data(), mapped->bytes()) {
    file = std::move(mapped);
  }
  sparsekit_model(const void* data, std::size_t bytes) {
    const sparsekit::CompiledFile compiled(static_cast<const std::byte*>(data), bytes);
    if (compiled.kind() == sparsekit::ModelKind::decoder) {
      decoder = std::make_unique<sparsekit::Decoder>(compiled);
    } else {
      encoder = std::make_unique<sparsekit::Encoder>(compiled);
    }
  }
};
