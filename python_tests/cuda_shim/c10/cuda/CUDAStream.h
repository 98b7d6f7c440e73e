#pragma once

#include "runtime_api.h"

namespace c10::cuda {

struct CUDAStream {
  cudaStream_t stream() const { return shim::current_stream(); }
};
inline CUDAStream getCurrentCUDAStream() { return {}; }

}  // namespace c10::cuda
