// A CSR as one argument and one result: (crow_indices, col_indices, values, dtype, scales, (out_features,
// in_features)).
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "formats/csr.h"
#include "formats/dtypes.h"

namespace sparsekit {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

using CsrTuple = std::tuple<Array<std::int64_t>, Array<std::int32_t>, py::array, std::string,
                            std::optional<Array<float>>, std::pair<std::int64_t, std::int64_t>>;

/// The arrays of a tuple, which must outlive the view; not yet validated. Throws pybind11::type_error for values of
/// another type than `dtype`, and for arrays that are not contiguous.
inline CsrView view_of(const CsrTuple& csr) {
  const auto& [crow_indices, col_indices, values, dtype_name, scales, shape] = csr;
  const DTypeEntry& dtype = dtype_entry(dtype_named(dtype_name));
  if (!values.dtype().equal(py::dtype(dtype.numpy)) || values.ndim() != 1 || !(values.flags() & py::array::c_style)) {
    throw py::type_error(dtype_name + " values must be a contiguous array of " + dtype.numpy + " with one dimension");
  }
  return {.crow_indices = crow_indices.data(),
          .crow_size = crow_indices.size(),
          .col_indices = col_indices.data(),
          .col_size = col_indices.size(),
          .values = values.data(),
          .values_size = values.size(),
          .out_features = shape.first,
          .in_features = shape.second,
          .dtype = dtype.dtype,
          .scales = scales ? scales->data() : nullptr,
          .scales_size = scales ? scales->size() : 0};
}

/// An array that owns its data, without a copy.
template <class T>
py::array to_array(std::vector<T>&& data, const py::dtype& dtype) {
  auto* owned = new std::vector<T>(std::move(data));
  py::capsule owner(owned, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array(dtype, {static_cast<py::ssize_t>(owned->size())}, {}, owned->data(), owner);
}

inline py::tuple to_tuple(AnyCsrArrays&& arrays, const py::object& scales, std::int64_t out_features,
                          std::int64_t in_features) {
  return std::visit(
      [&](auto&& csr) {
        using Value = typename std::decay_t<decltype(csr.values)>::value_type;
        const DTypeEntry& dtype = dtype_entry(kDType<Value>);
        return py::make_tuple(to_array(std::move(csr.crow_indices), py::dtype::of<std::int64_t>()),
                              to_array(std::move(csr.col_indices), py::dtype::of<std::int32_t>()),
                              to_array(std::move(csr.values), py::dtype(dtype.numpy)), dtype.name, scales,
                              py::make_tuple(out_features, in_features));
      },
      std::move(arrays));
}

}  // namespace sparsekit
