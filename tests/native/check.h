// Checks for the native tests. A failed check is printed and counted, and the test goes on; `main` returns
// check::result().
#pragma once

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

namespace check {

inline int failures = 0;

/// Limits the output of a sweep that fails everywhere.
inline constexpr int kPrintedFailures = 20;

inline void fail(const char* file, int line, const std::string& what) {
  if (++failures <= kPrintedFailures) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

inline int result() {
  if (failures > 0) std::fprintf(stderr, "%d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}

/// What is wrong with the way `body` ends, or nothing: it must throw an `Error` whose message contains `text`.
template <class Error, class Body>
std::string wrong_throw(const Body& body, const std::string& text) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    return message.find(text) != std::string::npos ? "" : "threw \"" + message + "\", without \"" + text + "\"";
  } catch (const std::exception& error) {
    return "threw another class of error: " + std::string(error.what());
  }
  return "did not throw";
}

}  // namespace check

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not " #condition); \
  } while (false)

/// CHECK that also prints `description`, which is evaluated only on failure.
#define CHECK_CASE(condition, description)                                                                \
  do {                                                                                                    \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not " #condition ": " + std::string(description)); \
  } while (false)

#define CHECK_THROWS_AS(error, expression, text)                                                   \
  do {                                                                                             \
    const std::string wrong_ = check::wrong_throw<error>([&] { (void)(expression); }, text);       \
    if (!wrong_.empty()) check::fail(__FILE__, __LINE__, std::string(#expression) + " " + wrong_); \
  } while (false)

/// `expression` must throw std::invalid_argument, and its message must contain `text`.
#define CHECK_THROWS(expression, text) CHECK_THROWS_AS(std::invalid_argument, expression, text)
