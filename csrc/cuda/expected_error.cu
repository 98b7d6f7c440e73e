#include "cuda/expected_error.cuh"

#include "cuda/sample_launch.h"

namespace sampling_argmax::cuda {
namespace {

struct ErrorTensors {
  Tensor error, grad_logits, grad_target, grad_points, grad_sigma;
};

template <class T>
ErrorResults<T> results_of(ErrorTensors& out) {
  return {out.error.mutable_data_ptr<T>(), out.grad_target.mutable_data_ptr<T>(), raw_or_null(out.grad_logits),
          data_or_null<T>(out.grad_points), data_or_null<T>(out.grad_sigma)};
}

// The kernel that has a row in shared memory; false where the row is too long for it.
template <class T>
bool launch_expected_error(const DeviceProblem& problem, Metric metric, const T* target, const T* weights,
                           ErrorTensors& out) {
  bool launched = true;
  const bool with_points = out.grad_points.numel() > 0;
  with_cell_kernel<T>(problem, [&](auto basis, auto axes, auto weight, const DeviceProblem& d) {
    const int threads = threads_for(d.p.cells, 8, 256);
    const int64_t cells = (d.p.cells + 3) / 4 * 4,
                  per_cell = ErrorTables<T, basis, axes>::numbers_per_cell(with_points);
    if (cells * per_cell * int64_t(sizeof(T)) > shared_limit() - 4096) {
      launched = false;
      return;
    }
    const int64_t shared = error_shared_bytes<T, basis, axes>(int(cells), threads, with_points);
    const dim3 grid = blocks(d.p.rows());
    if constexpr (basis == Basis::gaussian) {
      if (with_points)
        return launch(expected_error<T, basis, axes, weight, true>, grid, threads, shared, d, metric, target, weights,
                      results_of<T>(out));
    }
    launch(expected_error<T, basis, axes, weight, false>, grid, threads, shared, d, metric, target, weights,
           results_of<T>(out));
  });
  return launched;
}

// The distance of samples that exist, and its slopes over the samples' number.
template <class T, int axes>
__global__ void error_of_samples(Metric metric, int64_t rows, int64_t count, const T* samples, const T* targets,
                                 const T* weights, T* error, T* grad_target, T* slopes) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const bool masked = weights != nullptr && weights[row] == T(0);
  T total = T(0), sums[axes] = {};
  for (int64_t s = 0; s < count; ++s) {
    T difference[axes], slope[axes];
    const int64_t at = (row * count + s) * axes;
    for (int axis = 0; axis < axes; ++axis)
      difference[axis] = masked ? T(0) : samples[at + axis] - targets[row * axes + axis];
    total += distance<axes>(metric, difference, slope);
    for (int axis = 0; axis < axes; ++axis) {
      sums[axis] -= slope[axis];
      slopes[at + axis] = slope[axis] / T(count);
    }
  }
  error[row] = total / T(count);
  for (int axis = 0; axis < axes; ++axis) grad_target[row * axes + axis] = sums[axis] / T(count);
}

// Rows of weight 0 have gradients of 0, whatever was computed: `words` of 16 bits each, of whichever type.
template <class T>
__global__ void clear_masked(int64_t words, const T* weights, uint16_t* grad) {
  if (weights[blockIdx.x] != T(0)) return;
  uint16_t* row = grad + int64_t(blockIdx.x) * words;
  for (int64_t i = threadIdx.x; i < words; i += blockDim.x) row[i] = 0;
}

// Long rows: sample, the distances, sample's backward. Noise is drawn twice. Logits and sigma are contiguous here.
template <class T>
void long_rows(const DeviceProblem& d, const OptionalTensor& points, Metric metric, const Tensor& target,
               const OptionalTensor& weight, ErrorTensors& out) {
  Tensor samples = new_empty(out.error, {d.p.batch, d.p.keypoints, d.p.samples, d.p.axes});
  Tensor slopes = new_empty(samples, samples.sizes());
  Tensor stats = new_empty(samples, {d.p.batch, d.p.keypoints, d.p.samples, d.p.basis == Basis::gaussian ? 2 : 1});
  launch_sample<T>(d, samples, stats);
  with_axes(d.p, [&](auto axes) {
    launch(error_of_samples<T, axes>, blocks((d.p.rows() + 127) / 128), 128, 0, metric, d.p.rows(), d.p.samples,
           samples.const_data_ptr<T>(), target.const_data_ptr<T>(), weight ? weight->const_data_ptr<T>() : nullptr,
           out.error.mutable_data_ptr<T>(), out.grad_target.mutable_data_ptr<T>(), slopes.mutable_data_ptr<T>());
  });
  const SampleGradients<T> grads{raw_or_null(out.grad_logits), data_or_null<T>(out.grad_points),
                                 data_or_null<T>(out.grad_sigma)};
  if (grads.logits == nullptr && grads.points == nullptr && grads.sigma == nullptr) return;
  // The gradient of points is asked for per row: every row becomes a batch element with points of its own.
  DeviceProblem each = d;
  Tensor row_points;
  if (grads.points != nullptr) {
    row_points = new_empty(*points, {d.p.batch, d.p.keypoints, d.p.cells, d.p.axes});
    torch::stable::copy_(row_points, torch::stable::unsqueeze(*points, 1));
    each.p.points = row_points.const_data_ptr();
    each.p.batch = d.p.rows(), each.p.keypoints = 1;
    each.p.batch_stride = d.p.cells, each.p.sigma_stride[0] = 1;
  }
  launch_sample_backward<T>(each, slopes, samples, stats, grads);
  if (!weight) return;
  for (Tensor* grad : {&out.grad_logits, &out.grad_points, &out.grad_sigma}) {
    if (grad->numel() == 0) continue;
    const int64_t words = grad->numel() / d.p.rows() * int64_t(grad->element_size()) / 2;
    launch(clear_masked<T>, blocks(d.p.rows()), 128, 0, words, weight->const_data_ptr<T>(),
           static_cast<uint16_t*>(grad->mutable_data_ptr()));
  }
}

template <class T>
void run(const Tensor& logits, const Tensor& target, const OptionalTensor& weight, const OptionalTensor& points,
         const OptionalTensor& sigma, const Tensor& seed, int64_t num_samples, const Law& law, Metric metric,
         const OptionalTensor& origins, ErrorTensors& out) {
  const Problem p = describe(logits, points, sigma, num_samples, law, origins);
  const T* weights = weight ? weight->const_data_ptr<T>() : nullptr;
  if (launch_expected_error<T>(device_problem(p, seed), metric, target.const_data_ptr<T>(), weights, out)) return;
  const Tensor whole = dense(logits);
  const OptionalTensor widths = dense(sigma);
  const Problem long_p = describe(whole, points, widths, num_samples, law, origins);
  long_rows<T>(device_problem(long_p, seed), points, metric, target, weight, out);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expected_error_cuda(
    const Tensor& logits, const Tensor& target, const OptionalTensor& weight, const OptionalTensor& points,
    const OptionalTensor& sigma, const Tensor& seed, int64_t num_samples, const Tensor& tau, const Tensor& beta,
    StringHandle basis, StringHandle metric, const Needs& needs, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const OptionalTensor cells = dense(points);
  ErrorTensors out;
  const int64_t batch = logits.size(0), keypoints = logits.size(1);
  out.error = empty_result(logits, {batch, keypoints});
  out.grad_logits = empty_gradient(logits, logits, needs[0]);
  out.grad_target = new_empty(out.error, target.sizes());
  out.grad_points = needs[1] && points ? empty_result(logits, {batch, keypoints, points->size(1), points->size(2)})
                                       : empty_result(logits, {0});
  out.grad_sigma = empty_gradient(logits, sigma, needs[2]);
  auto* body = logits.scalar_type() == ScalarType::Double ? &run<double> : &run<float>;
  body(logits, dense(target), dense(weight), cells, sigma, seed, num_samples, law_of(tau, beta, basis),
       parse_metric(text_of(metric)), origins, out);
  return {out.error, out.grad_logits, out.grad_target, out.grad_points, out.grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("expected_error", TORCH_BOX(&sampling_argmax::cuda::expected_error_cuda));
}
