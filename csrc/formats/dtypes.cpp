#include "dtypes.h"

#include <stdexcept>

namespace sparsekit {

DType dtype_named(const std::string& name) {
  std::string known;
  for (const DTypeEntry& entry : kDTypes) {
    if (name == entry.name) return entry.dtype;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw std::invalid_argument("dtype must be one of " + known + ", got '" + name + "'");
}

}  // namespace sparsekit
