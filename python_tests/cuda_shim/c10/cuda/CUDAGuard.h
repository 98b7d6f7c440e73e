#pragma once

#include <c10/core/Device.h>

#include "runtime_api.h"

namespace c10::cuda {

class CUDAGuard {
 public:
  explicit CUDAGuard(Device) : before_(shim::current_device()) { shim::current_device() = shim::device_of_tensors; }
  ~CUDAGuard() { shim::current_device() = before_; }
  CUDAGuard(const CUDAGuard&) = delete;
  CUDAGuard& operator=(const CUDAGuard&) = delete;

 private:
  int before_;
};

}  // namespace c10::cuda
