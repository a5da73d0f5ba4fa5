// The one list of instruction sets in C++: name, and whether this machine runs it; slowest first. The matching list
// of compiler flags is cmake/InstructionSets.cmake.
#pragma once

#if defined(__x86_64__)
#define SPARSEKIT_FOR_EACH_ISA(X)                                                              \
  X(scalar, true)                                                                              \
  X(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                     \
  X(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&         \
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))      \
  X(icelake, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&       \
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") && \
                 __builtin_cpu_supports("avx512vnni"))
#elif defined(__aarch64__)
#define SPARSEKIT_FOR_EACH_ISA(X) \
  X(scalar, true)                 \
  X(neon, true)
#else
#define SPARSEKIT_FOR_EACH_ISA(X) X(scalar, true)
#endif
