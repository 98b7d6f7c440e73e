// The raw random words and the exponential of a word, through the code that the operators use. One thread a word.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

template <class T>  // a template only so that every file may include it
__global__ void random_words(const int64_t* seed, const int64_t* row, const int64_t* sample, const int64_t* index,
                             int stream, int64_t count, T* words) {
  SA_SHARED_MEMORY(memory);
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  store_schedule(noise_key(uint64_t(seed[0]), 0, 0).seed, schedule);
  __syncthreads();  // the schedule is written
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const NoiseKey key = noise_key(uint64_t(seed[0]), uint64_t(row[i]), uint32_t(sample[i]));
  const auto quad = quad_words(uint32_t(index[i] >> 2), loop_key(key, schedule), Stream(stream));
  words[i] = quad.v[index[i] & 3];
}

template <class T>
__global__ void exponentials(const uint32_t* words, int64_t count, T* out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = exponential<T>(words[i]);
}

}  // namespace sampling_argmax::cuda
