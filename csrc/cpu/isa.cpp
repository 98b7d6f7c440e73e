#include "cpu/isa.h"

#include <atomic>
#include <cstring>

#include "check.h"

namespace sampling_argmax {
namespace {

Isa machine_isa() {
#ifdef SA_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::portable;
}

std::atomic<Isa>& selected() {
  static std::atomic<Isa> isa{machine_isa()};
  return isa;
}

}  // namespace

Isa current_isa() { return selected().load(std::memory_order_relaxed); }

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "portable";
  }
}

void limit_isa(const char* name) {
  const Isa best = machine_isa();
  if (std::strcmp(name, "best") == 0) {
    selected() = best;
    return;
  }
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (std::strcmp(name, isa_name(isa)) != 0) continue;
    check(isa <= best, "limit_isa: this machine has no ", name, "; its best is ", isa_name(best));
    selected() = isa;
    return;
  }
  refuse("limit_isa: expected best, portable, avx2 or avx512, got ", name);
}

}  // namespace sampling_argmax
