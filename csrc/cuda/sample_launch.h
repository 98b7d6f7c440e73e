// Launches of sample and its backward into given results, compiled in files of their own; expected_error uses them for
// rows too long for its own kernel.

#pragma once

#include "cuda/launch.h"
#include "cuda/sample_backward.cuh"

namespace sampling_argmax::cuda {

template <class T>
void launch_sample(const DeviceProblem& problem, Tensor& samples, Tensor& stats);

template <class T>
void launch_sample_backward(const DeviceProblem& problem, const Tensor& grad, const Tensor& samples,
                            const Tensor& stats, const SampleGradients<T>& out);

}  // namespace sampling_argmax::cuda
