#include "scratch.h"

#include <memory>
#include <new>

namespace sparsekit {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(std::byte* p) const { ::operator delete(p, kAlignment); }
};

struct Buffer {
  std::unique_ptr<std::byte, Free> data;
  std::size_t bytes = 0;
};

}  // namespace

std::byte* scratch(ScratchUse use, std::size_t bytes) {
  thread_local Buffer buffers[2];
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (buffer.bytes < bytes) {
    buffer.data.reset();
    buffer.bytes = 0;
    buffer.data.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
    buffer.bytes = bytes;
  }
  return buffer.data.get();
}

}  // namespace sparsekit
