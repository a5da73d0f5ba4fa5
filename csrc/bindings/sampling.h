// sparsekit._C.sample: the next token from logits at an address.
#pragma once

#include <pybind11/pybind11.h>

void bind_sampling(pybind11::module_& m);
