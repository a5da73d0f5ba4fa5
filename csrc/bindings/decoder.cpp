#include "decoder.h"

#include <pybind11/stl.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "signals.h"

namespace py = pybind11;
using namespace sparsekit;

namespace {

using Address = std::uintptr_t;

std::unique_ptr<Decoder> open_decoder(Address data, std::size_t bytes) {
  return std::make_unique<Decoder>(CompiledFile(reinterpret_cast<const std::byte*>(data), bytes));
}

std::int64_t cache_bytes(const Decoder& decoder, const std::string& dtype) {
  return decoder.cache_shape().bytes(cache_dtype_named(dtype));
}

KeyValueCache make_cache(const Decoder& decoder, std::int64_t capacity, const std::string& dtype) {
  return {decoder.cache_shape(), capacity, cache_dtype_named(dtype)};
}

void run(const Decoder& decoder, Address ids, Address offsets, const std::vector<KeyValueCache*>& caches, bool all,
         Address logits) {
  const py::gil_scoped_release without_gil;
  const std::function<void()> check = SignalCheck();
  const Sequences sequences{reinterpret_cast<const std::int64_t*>(offsets), static_cast<std::int64_t>(caches.size())};
  decoder.run({reinterpret_cast<const std::int32_t*>(ids), sequences, caches.data(), &check},
              all ? LogitsOf::all : LogitsOf::last, reinterpret_cast<float*>(logits));
}

}  // namespace

void bind_decoder(py::module_& m) {
  m.def("check_cache_dtype", [](const std::string& dtype) { cache_dtype_named(dtype); }, py::arg("dtype"));
  py::class_<KeyValueCache>(m, "KeyValueCache")
      .def_property_readonly("tokens", &KeyValueCache::tokens)
      .def_property_readonly("capacity", &KeyValueCache::capacity)
      .def("truncate", &KeyValueCache::truncate, py::arg("count"))
      .def("copy", &KeyValueCache::copy, py::arg("other"), py::arg("count"));
  py::class_<Decoder>(m, "Decoder")
      .def(py::init(&open_decoder), py::arg("data"), py::arg("data_bytes"))
      .def_property_readonly("vocabulary", &Decoder::vocabulary)
      .def_property_readonly("max_tokens", &Decoder::max_tokens)
      .def("cache_bytes", &cache_bytes, py::arg("dtype"))
      .def("make_cache", &make_cache, py::arg("capacity"), py::arg("dtype"))
      .def("run", &run, py::arg("ids"), py::arg("offsets"), py::arg("caches"), py::arg("all"), py::arg("logits"));
}
