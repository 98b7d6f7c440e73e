// Where kernels run: the CUDA runtime under nvcc, or a host shim that stands in for it under g++ (tests only).

#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define SA_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#else
#include "shim.h"
#endif
