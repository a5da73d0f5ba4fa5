#include "scratch.h"

#include <memory>
#include <new>

namespace sparsekit {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(float* p) const { ::operator delete(p, kAlignment); }
};

struct Buffer {
  std::unique_ptr<float, Free> data;
  std::size_t floats = 0;
};

}  // namespace

float* scratch(ScratchUse use, std::size_t floats) {
  thread_local Buffer buffers[2];
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (buffer.floats < floats) {
    buffer.data.reset();
    buffer.floats = 0;
    buffer.data.reset(static_cast<float*>(::operator new(floats * sizeof(float), kAlignment)));
    buffer.floats = floats;
  }
  return buffer.data.get();
}

}  // namespace sparsekit
