// A stand-in for the CUDA runtime that runs kernels on the host: every CUDA thread of a block is a fiber, blocks run
// one after another on each host thread. Barriers, warp barriers and shuffles are real: a fiber waits for its partners,
// the order in which fibers run is shuffled (settings().schedule), shared memory starts as NaN and has a guard behind
// it. A barrier that not all threads reach, a shuffle with a partner missing or a write behind shared memory is an
// error. Special functions are exact, or off by their documented bounds (settings().perturbation). Not modelled: memory
// order, coalescing.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __CUDA_SHIM__ 1

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace shim {

struct Settings {
  int64_t multiprocessors = 4, shared_limit = 227 * 1024, schedule = 0;
  int64_t perturbation = 0;  // of special functions: 1 and -1 all up and all down, 2 the one or the other by argument
};
Settings& settings();

// Launches that record_launches had recorded and not run: a line each, the kernel's mangled name, grid, threads, bytes
// of shared memory.
struct Recorder {
  bool on = false;
  std::string lines;
};
Recorder& recorder();

struct Place {
  dim3 thread, block, block_size, grid;
  unsigned char* shared;
};
Place& place();  // of the running fiber

void block_barrier();
void warp_barrier();
uint64_t exchange(uint64_t value, int from_lane);  // the value that lane `from_lane` of the warp brought

void run_grid(dim3 grid, int threads, int64_t shared, const std::function<void()>& kernel);

template <class To, class From>
To bit_cast(const From& from) {
  To to{};
  std::memcpy(&to, &from, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
  return to;
}

// A result of the special-function unit: `exact`, moved by the bound that PTX's manual gives for it.
inline float special(const char* instruction, float x, float exact) {
  const int64_t kind = settings().perturbation;
  if (kind == 0) return exact;
  const float sign = kind != 2 ? float(kind) : bit_cast<uint32_t>(x) * 0x9E3779B9u >> 31 ? 1.0f : -1.0f;
  const bool absolute = std::strcmp(instruction, "lg2") == 0 && x > 0.5f && x < 2;
  return exact + sign * 0x1p-22f * (absolute ? 1.0f : std::fabs(exact));
}

inline int lane() { return int(place().thread.x % 32); }

template <class T>
T shuffle(T value, int from_lane) {
  return bit_cast<T>(exchange(bit_cast<uint64_t>(value), from_lane));
}

template <class Choose>
uint32_t reduce(uint32_t value, const Choose& choose) {
  for (int mask = 1; mask < 32; mask *= 2) {
    const uint32_t other = shuffle(value, lane() ^ mask);
    value = choose(value, other) ? value : other;
  }
  return value;
}

}  // namespace shim

#define threadIdx (shim::place().thread)
#define blockIdx (shim::place().block)
#define blockDim (shim::place().block_size)
#define gridDim (shim::place().grid)
#define SA_SHARED_MEMORY(name) unsigned char* name = shim::place().shared

inline void __syncthreads() { shim::block_barrier(); }
inline void __syncwarp() { shim::warp_barrier(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return shim::shuffle(value, shim::lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int delta) {
  return shim::shuffle(value, shim::lane() < delta ? shim::lane() : shim::lane() - delta);
}
template <class T>
T __shfl_sync(unsigned, T value, int from_lane) {
  return shim::shuffle(value, from_lane);
}

inline uint32_t __reduce_max_sync(unsigned, uint32_t value) {
  return shim::reduce(value, [](uint32_t a, uint32_t b) { return a > b; });
}
inline uint32_t __reduce_min_sync(unsigned, uint32_t value) {
  return shim::reduce(value, [](uint32_t a, uint32_t b) { return a < b; });
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline float __uint_as_float(uint32_t bits) { return shim::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float x) { return shim::bit_cast<uint32_t>(x); }
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int k = 0; k < 4; ++k) out |= uint32_t(bytes >> 8 * (selector >> 4 * k & 7) & 0xFF) << 8 * k;
  return out;
}

inline float cospif(float x) { return float(std::cos(M_PI * double(x))); }
inline float sinpif(float x) { return float(std::sin(M_PI * double(x))); }
inline double cospi(double x) { return std::cos(M_PI * x); }
inline double sinpi(double x) { return std::sin(M_PI * x); }

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
