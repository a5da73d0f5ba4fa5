// Handle Python signals in calls that run without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

/// Checks for Ctrl-C in Python's main thread, without stalling other threads, which may hold the GIL.
class SignalCheck {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < kPause) return;
    last_ = now;
    const pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  }

 private:
  static constexpr std::chrono::milliseconds kPause{50};
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};
