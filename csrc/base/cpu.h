// The list of instruction sets in C++: name, and whether this machine supports it; slowest first. The matching compiler
// flags are in cmake/InstructionSets.cmake. Also the processor's vendor, which decides between kernels.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

#define SPARSEKIT_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define SPARSEKIT_HAS_AVX2 (SPARSEKIT_HAS("avx2") && SPARSEKIT_HAS("fma") && sparsekit::has_f16c())
#define SPARSEKIT_HAS_AVX512                                                                                   \
  (SPARSEKIT_HAS_AVX2 && SPARSEKIT_HAS("avx512f") && SPARSEKIT_HAS("avx512bw") && SPARSEKIT_HAS("avx512dq") && \
   SPARSEKIT_HAS("avx512vl"))
#define SPARSEKIT_HAS_VNNI (SPARSEKIT_HAS_AVX512 && SPARSEKIT_HAS("avx512vnni"))
#define SPARSEKIT_FOR_EACH_ISA(X)                               \
  X(scalar, true)                                               \
  X(avx2, SPARSEKIT_HAS_AVX2)                                   \
  X(avxvnni, (SPARSEKIT_HAS_AVX2 && sparsekit::has_avx_vnni())) \
  X(avx512, SPARSEKIT_HAS_AVX512)                               \
  X(avx512vnni, SPARSEKIT_HAS_VNNI)                             \
  X(avx512vbmi, (SPARSEKIT_HAS_VNNI && SPARSEKIT_HAS("avx512vbmi")))

namespace sparsekit {

inline bool is_amd() { return __builtin_cpu_is("amd") != 0; }

/// Leaf 1, bit 29 of ecx; clang before 18 has no name for it.
inline bool has_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 29)) != 0;
}

/// Leaf 7, subleaf 1, bit 4 of eax; GCC before 13 has no name for it.
inline bool has_avx_vnni() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1U << 4)) != 0;
}

}  // namespace sparsekit
#elif defined(__aarch64__)
#define SPARSEKIT_FOR_EACH_ISA(X) \
  X(scalar, true)                 \
  X(neon, true)                   \
  X(neondot, sparsekit::has_dot_products())

#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sparsekit {

/// Linux says so in bit 20 of the hardware capabilities; every 64-bit Arm processor of Apple's Macs has them.
inline bool has_dot_products() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & (1UL << 20)) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace sparsekit
#else
#define SPARSEKIT_FOR_EACH_ISA(X) X(scalar, true)
#endif

#if !defined(__x86_64__)
namespace sparsekit {

inline bool is_amd() { return false; }

}  // namespace sparsekit
#endif
