#include "encoder.h"

#include <functional>
#include <memory>

#include "model/encoder.h"
#include "signals.h"

namespace py = pybind11;
using namespace sparsekit;

namespace {

using Address = std::uintptr_t;

std::unique_ptr<Encoder> open_encoder(Address data, std::size_t bytes) {
  return std::make_unique<Encoder>(CompiledFile(reinterpret_cast<const std::byte*>(data), bytes));
}

EncoderInput input_of(Address ids, Address types, Address offsets, std::int64_t sequences,
                      const std::function<void()>& between_layers) {
  return {reinterpret_cast<const std::int32_t*>(ids),
          reinterpret_cast<const std::int32_t*>(types),
          {reinterpret_cast<const std::int64_t*>(offsets), sequences},
          &between_layers};
}

void run(const Encoder& encoder, Address ids, Address types, Address offsets, std::int64_t sequences, Address output) {
  const std::function<void()> check = SignalCheck();
  encoder.run(input_of(ids, types, offsets, sequences, check), reinterpret_cast<float*>(output));
}

void encode(const Encoder& encoder, Address ids, Address types, Address offsets, std::int64_t sequences,
            Address output) {
  const std::function<void()> check = SignalCheck();
  encoder.encode(input_of(ids, types, offsets, sequences, check), reinterpret_cast<float*>(output));
}

}  // namespace

void bind_encoder(py::module_& m) {
  const auto without_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<Encoder>(m, "Encoder")
      .def(py::init(&open_encoder), py::arg("data"), py::arg("data_bytes"))
      .def_property_readonly("features", &Encoder::features)
      .def_property_readonly("vocabulary", &Encoder::vocabulary)
      .def_property_readonly("max_tokens", &Encoder::max_tokens)
      .def_property_readonly("types", &Encoder::types)
      .def_property_readonly("task", [](const Encoder& encoder) { return static_cast<int>(encoder.task()); })
      .def_property_readonly("outputs", &Encoder::outputs)
      .def("run", &run, without_gil, py::arg("ids"), py::arg("types"), py::arg("offsets"), py::arg("sequences"),
           py::arg("output"))
      .def("encode", &encode, without_gil, py::arg("ids"), py::arg("types"), py::arg("offsets"), py::arg("sequences"),
           py::arg("output"));
}
