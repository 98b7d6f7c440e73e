// Includes SA_KERNELS once for each instruction set, in a namespace of its own, and picks one at run time.
// Only what is defined inside those namespaces may be called by kernels: a function of the standard library
// compiled for AVX-512 here could replace its portable twin in the whole program.

#pragma once

#include <cstdint>

#include "isa.h"

#define SA_INLINE inline __attribute__((always_inline))
#define SA_ALL_HEADERS "kernel_headers.h"

namespace sampling_argmax {

namespace portable {
#include "simd_portable.h"
#include SA_ALL_HEADERS
#include SA_KERNELS
}  // namespace portable

#ifdef SA_X86
#include "target_avx2_begin.h"
namespace avx2 {
#include "simd_avx2.h"
#include SA_ALL_HEADERS
#include SA_KERNELS
}  // namespace avx2
#include "target_end.h"

#include "target_avx512_begin.h"
namespace avx512 {
#include "simd_avx512.h"
#include SA_ALL_HEADERS
#include SA_KERNELS
}  // namespace avx512
#include "target_end.h"
#endif

}  // namespace sampling_argmax
