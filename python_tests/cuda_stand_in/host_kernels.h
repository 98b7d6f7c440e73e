// From a launch as the runtime gets it, a name and an array of pointers, to a kernel compiled for the host (cuda_shim).
// Its text, and a table of kernels, are appended to each of cuda_shim's units.

#include <exception>
#include <map>
#include <string>
#include <utility>

#include "runtime_api.h"

extern "C" int stand_in_current_device();
extern "C" int stand_in_owner(const void* address);

namespace stand_in {

using Kernel = void (*)(dim3 grid, int threads, int64_t shared, void** arguments);

inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> instance;
  return instance;
}

// A pointer among the arguments, or inside of one, must be of the device that the kernel runs on.
template <class T>
void check_owner(const T& argument) {
  for (size_t at = 0; at + sizeof(void*) <= sizeof(T); at += sizeof(void*)) {
    const void* word = nullptr;
    std::memcpy(&word, reinterpret_cast<const char*>(&argument) + at, sizeof word);
    const int owner = stand_in_owner(word);
    if (owner >= 0 && owner != stand_in_current_device())
      throw std::runtime_error("memory of device " + std::to_string(owner) + " in a kernel of device " +
                               std::to_string(stand_in_current_device()));
  }
}

template <class... Parameters, size_t... i>
void run(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, void** arguments,
         std::index_sequence<i...>) {
  (check_owner(*static_cast<Parameters*>(arguments[i])), ...);
  shim::run_grid(grid, threads, shared, [&] { kernel(*static_cast<Parameters*>(arguments[i])...); });
}

template <class... Parameters>
void run(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, void** arguments) {
  run(kernel, grid, threads, shared, arguments, std::index_sequence_for<Parameters...>());
}

}  // namespace stand_in

#define STAND_IN_KERNEL(name, ...)                                                         \
  {name, [](dim3 grid, int threads, int64_t shared, void** arguments) {                    \
     stand_in::run(&sampling_argmax::cuda::__VA_ARGS__, grid, threads, shared, arguments); \
   }}

extern "C" __attribute__((used)) inline const char* stand_in_run(const char* name, const unsigned (&grid)[3],
                                                                 int threads, size_t shared, void** arguments) {
  thread_local std::string error;
  try {
    stand_in::kernels().at(name)(dim3(grid[0], grid[1], grid[2]), threads, int64_t(shared), arguments);
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}
