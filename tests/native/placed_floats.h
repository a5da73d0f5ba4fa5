// Floats at an awkward place: a stray access behind them faults or is seen by the address sanitizer.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>
#include <vector>

enum class Place {
  heap,      // a heap buffer of exactly the needed size
  shifted,   // the same, behind one float, so that no vector is aligned
  page_end,  // before a page that cannot be accessed: the sanitizer does not see into masked loads and stores
};

/// What may be done behind floats at the end of a page: nothing; or reading, where SPARSEKIT_TEST_BARRIER is set.
/// qemu 7 reads all of what a masked load of AVX asks for a part of.
inline int barrier_access() { return std::getenv("SPARSEKIT_TEST_BARRIER") == nullptr ? PROT_NONE : PROT_READ; }

class PlacedFloats {
 public:
  /// Every float is NaN at first, so that one that is left out, or read by mistake, shows.
  PlacedFloats(std::size_t count, Place place) {
    if (place == Place::page_end) {
      map_before_barrier(count);
    } else {
      heap_.resize(count + (place == Place::shifted ? 1 : 0));
      data_ = heap_.data() + (place == Place::shifted ? 1 : 0);
    }
    for (std::size_t i = 0; i < count; ++i) data_[i] = std::numeric_limits<float>::quiet_NaN();
  }

  ~PlacedFloats() {
    if (pages_ != nullptr) munmap(pages_, bytes_);
  }

  PlacedFloats(const PlacedFloats&) = delete;
  PlacedFloats& operator=(const PlacedFloats&) = delete;

  float* data() { return data_; }

 private:
  void map_before_barrier(std::size_t count) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t usable = (count * sizeof(float) + page - 1) / page * page;
    bytes_ = usable + page;
    void* pages = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<std::byte*>(pages);
    if (mprotect(pages_ + usable, page, barrier_access()) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<float*>(pages_ + usable) - count;
  }

  std::vector<float> heap_;
  std::byte* pages_ = nullptr;
  std::size_t bytes_ = 0;
  float* data_ = nullptr;
};
