// The part of the CUDA runtime's interface that the launchers use. Tensors are the host's, and count as those of device
// 1 of two: a guard of theirs makes it current, and what a real runtime refuses, or would do wrong in silence, is an
// error here: a launch outside of a guard or on another stream than the current one, a grid or block beyond the limits,
// more shared memory than a kernel was allowed, an allowance that is lowered.

#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "shim.h"

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaError_t = std::string;  // empty: success
using cudaStream_t = const void*;

struct cudaLaunchConfig_t {  // in the order of the real one, whose names are shim.h's macros
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
};

namespace shim {

constexpr int device_of_tensors = 1;
int& current_device();          // of this host thread
cudaStream_t current_stream();  // of the current device, never the default one
cudaError_t allow_shared(const void* kernel, int bytes);
cudaError_t refused(const void* kernel, const cudaLaunchConfig_t& config);
void record(const void* kernel, const cudaLaunchConfig_t& config);

class DeviceGuard {  // of the tensors' device, which PyTorch takes for the CPU's
 public:
  explicit DeviceGuard(int32_t) : before_(current_device()) { current_device() = device_of_tensors; }
  ~DeviceGuard() { current_device() = before_; }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
};

}  // namespace shim

#undef STD_CUDA_CHECK  // PyTorch's asks its CUDA library what went wrong
#define STD_CUDA_CHECK(call)                                                                       \
  do {                                                                                             \
    const cudaError_t error = call;                                                                \
    if (!error.empty()) throw std::runtime_error("cuda shim: " + std::string(error) + ": " #call); \
  } while (false)

inline cudaError_t cudaGetDevice(int* device) { return *device = shim::current_device(), ""; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const shim::Settings& s = shim::settings();
  *value = int(attribute == cudaDevAttrMultiProcessorCount ? s.multiprocessors : s.shared_limit);
  return "";
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return shim::allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}
template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Parameters... args) {
  const cudaError_t error = shim::refused(reinterpret_cast<const void*>(kernel), *config);
  if (!error.empty()) return error;
  if (shim::recorder().on)
    shim::record(reinterpret_cast<const void*>(kernel), *config);
  else
    shim::run_grid(config->grid, int(config->block.x), int64_t(config->shared), [&] { kernel(args...); });
  return error;
}
