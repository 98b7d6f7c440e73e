// Tables and scratch memory of a Problem, and the choice of instruction set.

#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "tensors.h"

namespace sampling_argmax {

// The problem, and what it points to.
struct Task {
  Problem p;
  Tensor points;
  std::vector<char> tables;
};

template <class T>
std::vector<char> coordinate_tables(const Problem& p) {
  // The uniform basis takes coordinates that are already moved (csrc/noise.h).
  const double shift = p.basis == Basis::uniform ? 0x1p-17 - 0.5 : 0;
  std::vector<char> bytes(sizeof(T) * p.axes * p.padded(), 0);
  T* table = reinterpret_cast<T*>(bytes.data());
  for (int64_t line = 0, i = 0; line < p.shape[0] * p.shape[1]; ++line) {
    const T position[3] = {T(shift), T(line % p.shape[1] + shift), T(line / p.shape[1] + shift)};
    for (int64_t x = 0; x < p.shape[2]; ++x) table[i + x] = T(x + shift);
    for (int axis = 1; axis < p.axes; ++axis) std::fill_n(table + axis * p.padded() + i, p.shape[2], position[axis]);
    i += p.shape[2];
  }
  return bytes;
}

inline Task make_task(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                      const Tensor& seed, int64_t samples, const Law& law, const OptionalTensor& origins,
                      bool tables = true) {
  Task task{};
  const OptionalTensor cells = dense(points);
  Problem& p = task.p = describe(logits, cells, sigma, samples, law, origins);
  if (seed.defined()) {
    check_seed(seed);
    const int64_t* key = seed.const_data_ptr<int64_t>();
    p.seed = uint64_t(key[0]), p.first_row = seed.numel() > 1 ? uint64_t(key[1]) : 0;
  }
  if (cells) {
    task.points = *cells;
  } else if (tables && p.origins == nullptr) {
    task.tables = double_precision(p) ? coordinate_tables<double>(p) : coordinate_tables<float>(p);
    p.coords = task.tables.data();
  }
  return task;
}

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};
template <class T>
using Scratch = std::unique_ptr<T[], Free>;

template <class T>
Scratch<T> make_scratch(int64_t count) {
  return Scratch<T>(static_cast<T*>(::operator new(sizeof(T) * std::max<int64_t>(count, 1), std::align_val_t(64))));
}

// Rows are cut into this many parts so that a few rows still occupy every thread. Results do not depend on it.
inline int64_t parts_per_row(int64_t rows, int64_t most) {
  const int64_t wanted = 4 * int64_t(torch::stable::get_num_threads());
  return rows == 0 || rows >= wanted ? 1 : std::min(most, (wanted + rows - 1) / rows);
}

// Calls body(row, part, scratch) for every part of every row, one scratch of `scratch_size` numbers a thread.
template <class T, class Body>
void for_each_part(int64_t rows, int64_t parts, int64_t scratch_size, const Body& body) {
  torch::stable::parallel_for(0, rows * parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch = make_scratch<T>(scratch_size);
    for (int64_t item = begin; item < end; ++item) body(item / parts, item % parts, scratch.get());
  });
}

// Writes a padded table of gradients as the logits' type.
template <class T>
void write_cells(const T* from, int64_t begin, int64_t end, const Tensor& out, int64_t offset) {
  switch (out.scalar_type()) {
    case ScalarType::Float: std::copy(from + begin, from + end, out.mutable_data_ptr<float>() + offset + begin); return;
    case ScalarType::Double:
      std::copy(from + begin, from + end, out.mutable_data_ptr<double>() + offset + begin);
      return;
    case ScalarType::BFloat16:
      std::copy(from + begin, from + end, out.mutable_data_ptr<c10::BFloat16>() + offset + begin);
      return;
    default: std::copy(from + begin, from + end, out.mutable_data_ptr<c10::Half>() + offset + begin); return;
  }
}

// Writes tables of gradients, each `stride` long, as points [N, d].
template <class T>
void write_points(int axes, int64_t stride, const T* from, int64_t begin, int64_t end, T* out) {
  for (int64_t i = begin; i < end; ++i)
    for (int axis = 0; axis < axes; ++axis) out[i * axes + axis] = from[axis * stride + i];
}

}  // namespace sampling_argmax

// Runs Kernel<R, basis, axes>::run for the element type T (a template parameter of the caller) and the machine.
#ifdef SA_X86
#define SA_RUN(dispatch, Kernel, T, ...)                                                   \
  [&] {                                                                                    \
    if constexpr (sizeof(T) == 8) {                                                        \
      return portable::dispatch<portable::Kernel, portable::Double>(__VA_ARGS__);          \
    } else {                                                                               \
      switch (current_isa()) {                                                             \
        case Isa::avx512: return avx512::dispatch<avx512::Kernel, avx512::F>(__VA_ARGS__); \
        case Isa::avx2: return avx2::dispatch<avx2::Kernel, avx2::F>(__VA_ARGS__);         \
        default: return portable::dispatch<portable::Kernel, portable::F>(__VA_ARGS__);    \
      }                                                                                    \
    }                                                                                      \
  }()
#else
#define SA_RUN(dispatch, Kernel, T, ...)                                          \
  [&] {                                                                           \
    if constexpr (sizeof(T) == 8)                                                 \
      return portable::dispatch<portable::Kernel, portable::Double>(__VA_ARGS__); \
    else                                                                          \
      return portable::dispatch<portable::Kernel, portable::F>(__VA_ARGS__);      \
  }()
#endif
