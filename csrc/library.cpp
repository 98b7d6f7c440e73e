// The operators of this project; each kernel file registers its implementation at its foot.
// Shapes, units and equations: the docstrings of sampling_argmax_cuda/ops.py and reference/README.md.

#include <Python.h>
#include <torch/csrc/stable/library.h>

#ifndef SA_LIBRARY  // tests give the same operators another name
#define SA_LIBRARY sampling_argmax
#endif

STABLE_TORCH_LIBRARY(SA_LIBRARY, m) {
  m.def(
      "sample(Tensor logits, Tensor? points, Tensor? sigma, Tensor seed, int num_samples, Tensor tau, Tensor beta, "
      "str basis, Tensor? origins=None) -> (Tensor samples, Tensor stats)");
  m.def(
      "sample_backward(Tensor grad, Tensor logits, Tensor? points, Tensor? sigma, Tensor seed, Tensor samples, "
      "Tensor stats, Tensor tau, Tensor beta, str basis, bool[3] needs, Tensor? origins=None) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "axis_sample(Tensor logits, Tensor? sigma, Tensor seed, int num_samples, Tensor tau, Tensor beta, str basis, "
      "float reweight, float? clip_grad, Tensor? origins=None) -> (Tensor samples, Tensor marginals, Tensor stats)");
  m.def(
      "axis_sample_backward(Tensor grad, Tensor logits, Tensor? sigma, Tensor seed, Tensor marginals, "
      "Tensor stats, Tensor tau, Tensor beta, str basis, float reweight, float? clip_grad, bool[2] needs, "
      "Tensor? origins=None) -> (Tensor, Tensor)");
  m.def(
      "expected_error(Tensor logits, Tensor target, Tensor? weight, Tensor? points, Tensor? sigma, Tensor seed, "
      "int num_samples, Tensor tau, Tensor beta, str basis, str metric, bool[3] needs, Tensor? origins=None) "
      "-> (Tensor error, Tensor grad_logits, Tensor grad_target, Tensor grad_points, Tensor grad_sigma)");
  m.def(
      "soft_argmax(Tensor logits, Tensor? points, Tensor beta, Tensor? origins=None) "
      "-> (Tensor mean, Tensor covariance, Tensor peak, Tensor entropy, Tensor mode)");
  m.def(
      "soft_argmax_backward(Tensor? grad_mean, Tensor? grad_covariance, Tensor? grad_peak, Tensor? grad_entropy, "
      "Tensor logits, Tensor? points, Tensor mean, Tensor covariance, Tensor peak, Tensor entropy, Tensor mode, "
      "Tensor beta, bool[2] needs, Tensor? origins=None) -> (Tensor, Tensor)");
  m.def("farthest_points(Tensor points, Tensor first, int count) -> Tensor");
  m.def("neighbours(Tensor points, Tensor centers, float radius, int count) -> Tensor");
  // For tests and tools: the raw random words, the exponential of a word, and the build.
  m.def("random_words(Tensor seed, Tensor row, Tensor sample, Tensor index, int stream) -> Tensor");
  m.def("exponential(Tensor words) -> Tensor");
  m.def("build_info() -> str");
  m.def("cuda_architectures() -> str");
  m.def("limit_isa(str name) -> ()");
}

// The extension module is empty: loading it registers the operators with the CPU's kernels.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
  return PyModule_Create(&module);
}
