// The instruction set that the CPU kernels use, found at run time.

#pragma once

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SA_X86
#include <immintrin.h>
#endif

namespace sampling_argmax {

enum class Isa { portable, avx2, avx512 };

Isa current_isa();
const char* isa_name(Isa isa);

// Lowers the instruction set, for tests and instruction counts; "best" restores the machine's own.
void limit_isa(const char* name);

}  // namespace sampling_argmax
