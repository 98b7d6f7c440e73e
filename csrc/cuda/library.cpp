// The extension module of the CUDA kernels. Loading it registers them as implementations of the operators that
// csrc/library.cpp defines; it stands apart so that the CPU's kernels run where no CUDA is installed.

#include <Python.h>

PyMODINIT_FUNC PyInit__C_cuda() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr};
  return PyModule_Create(&module);
}
