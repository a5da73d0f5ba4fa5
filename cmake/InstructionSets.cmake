# The one table of instruction sets for the build: name and compiler flags. csrc/base/cpu.h lists the same names with
# the run-time check; tests/test_architecture.py compares the two.
#
# GCC 12 takes the undefined lanes inside its own AVX-512 intrinsics for uninitialized variables (GCC bug 105593).
# scalar is the reference: the vectorizer stays off. The others contract a * b + c into FMA, which ISO mode turns off.
set(SPARSEKIT_ISA_FLAGS_scalar -O2 -fno-tree-vectorize -fno-tree-slp-vectorize)
set(SPARSEKIT_ISA_FLAGS_avx2 -O3 -mavx2 -mfma -mf16c -ffp-contract=fast)
set(SPARSEKIT_ISA_FLAGS_avxvnni -O3 -mavx2 -mfma -mf16c -mavxvnni -ffp-contract=fast)
set(SPARSEKIT_ISA_FLAGS_avx512 -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
                               -ffp-contract=fast -Wno-maybe-uninitialized -Wno-uninitialized)
set(SPARSEKIT_ISA_FLAGS_avx512vnni -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c
                                   -mprefer-vector-width=512 -ffp-contract=fast -Wno-maybe-uninitialized -Wno-uninitialized)
set(SPARSEKIT_ISA_FLAGS_avx512vbmi -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mfma -mf16c
                                   -mprefer-vector-width=512 -ffp-contract=fast -Wno-maybe-uninitialized -Wno-uninitialized)
set(SPARSEKIT_ISA_FLAGS_neon -O3 -ffp-contract=fast)
set(SPARSEKIT_ISA_FLAGS_neondot -O3 -march=armv8.2-a+dotprod -ffp-contract=fast)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(SPARSEKIT_ISAS scalar avx2 avxvnni avx512 avx512vnni avx512vbmi)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set(SPARSEKIT_ISAS scalar neon neondot)
else()
  set(SPARSEKIT_ISAS scalar)
endif()

# Compiles the kernels once per instruction set; each object exports one symbol, sparsekit_kernels_<isa>.
function(sparsekit_add_kernels target)
  foreach(isa IN LISTS SPARSEKIT_ISAS)
    set(object kernels_${isa})
    add_library(${object} OBJECT csrc/kernels/table.cpp)
    target_compile_definitions(${object} PRIVATE SPARSEKIT_ISA_HEADER="isa/${isa}.h"
                                                 SPARSEKIT_TABLE=sparsekit_kernels_${isa})
    target_compile_options(${object} PRIVATE ${SPARSEKIT_ISA_FLAGS_${isa}})
    target_link_libraries(${object} PRIVATE sparsekit_flags)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
endfunction()
