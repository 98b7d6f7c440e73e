#pragma once

#include <c10/util/Exception.h>

#include "runtime_api.h"

#define C10_CUDA_CHECK(call)                                      \
  do {                                                            \
    const cudaError_t error = call;                               \
    TORCH_CHECK(error.empty(), "cuda shim: ", error, ": " #call); \
  } while (false)
