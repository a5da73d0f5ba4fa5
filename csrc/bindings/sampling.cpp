#include "sampling.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "operators/sampling.h"

namespace py = pybind11;
using namespace sparsekit;

namespace {

using Address = std::uintptr_t;

template <class T>
std::span<const T> span_at(Address address, std::size_t count) {
  return {reinterpret_cast<const T*>(address), count};
}

void check(float temperature, std::int32_t top_k, float top_p, float min_p, float repetition_penalty) {
  check_sampling({temperature, top_k, top_p, min_p, repetition_penalty});
}

std::pair<std::int32_t, double> sample(Address logits, std::size_t vocabulary, Address seen, std::size_t seen_tokens,
                                       float temperature, std::int32_t top_k, float top_p, float min_p,
                                       float repetition_penalty, std::uint64_t seed, std::uint64_t step) {
  const auto row = span_at<float>(logits, vocabulary);
  Sampler sampler({temperature, top_k, top_p, min_p, repetition_penalty}, seed);
  const std::int32_t token = sampler.next(row, span_at<std::int32_t>(seen, seen_tokens), step);
  return {token, log_probability(row, token)};
}

}  // namespace

void bind_sampling(py::module_& m) {
  m.def("check_sampling", &check, py::arg("temperature"), py::arg("top_k"), py::arg("top_p"), py::arg("min_p"),
        py::arg("repetition_penalty"));
  m.def("sample", &sample, py::call_guard<py::gil_scoped_release>(), py::arg("logits"), py::arg("vocabulary"),
        py::arg("seen"), py::arg("seen_tokens"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"),
        py::arg("min_p"), py::arg("repetition_penalty"), py::arg("seed"), py::arg("step"));
}
