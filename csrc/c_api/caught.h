// Convert exceptions to statuses and messages.
#pragma once

#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "include/sparsekit.h"
#include "model/session.h"
#include "operators/instruction_set.h"

namespace sparsekit {

struct Error {
  char* text;
  std::size_t bytes;

  sparsekit_status operator()(sparsekit_status status, const char* why) const {
    if (text != nullptr && bytes > 0) std::snprintf(text, bytes, "%s", why);
    return status;
  }
};

/// Status of what `body` throws.
template <class Body>
sparsekit_status caught(const Error& error, const Body& body) {
  try {
    body();
    return SPARSEKIT_OK;
  } catch (const Stopped& why) {
    return error(SPARSEKIT_STOPPED, why.what());
  } catch (const std::invalid_argument& why) {
    return error(SPARSEKIT_INVALID, why.what());
  } catch (const std::system_error& why) {
    return error(SPARSEKIT_UNAVAILABLE, why.what());
  } catch (const KernelUnavailable& why) {
    return error(SPARSEKIT_UNAVAILABLE, why.what());
  } catch (const std::bad_alloc&) {
    return error(SPARSEKIT_OUT_OF_MEMORY, "out of memory; run fewer tokens at a time");
  } catch (const std::exception& why) {
    return error(SPARSEKIT_FAILED, why.what());
  } catch (...) {
    return error(SPARSEKIT_FAILED, "unknown error");
  }
}

inline void require(bool given, const char* what) {
  if (!given) throw std::invalid_argument(std::string(what) + " must not be NULL");
}

}  // namespace sparsekit
