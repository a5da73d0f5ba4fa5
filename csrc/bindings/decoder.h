// sparsekit._C.Decoder and its caches: a compiled decoder at an address.
#pragma once

#include <pybind11/pybind11.h>

void bind_decoder(pybind11::module_& m);
