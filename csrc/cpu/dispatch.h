// From a problem's basis and number of axes to the kernel compiled for them. No include guard (see foreach_isa.h).

template <template <class, Basis, int> class Kernel, class R, Basis basis, class... Args>
auto dispatch_axes(const Problem& p, Args... args) {
  switch (p.axes) {
    case 1: return Kernel<R, basis, 1>::run(p, args...);
    case 2: return Kernel<R, basis, 2>::run(p, args...);
    default: return Kernel<R, basis, 3>::run(p, args...);
  }
}

template <template <class, Basis, int> class Kernel, class R, class... Args>
auto dispatch(const Problem& p, Args... args) {
  switch (p.basis) {
    case Basis::none: return dispatch_axes<Kernel, R, Basis::none>(p, args...);
    case Basis::uniform: return dispatch_axes<Kernel, R, Basis::uniform>(p, args...);
    case Basis::triangular: return dispatch_axes<Kernel, R, Basis::triangular>(p, args...);
    default: return dispatch_axes<Kernel, R, Basis::gaussian>(p, args...);
  }
}

// For a kernel that has axes and no basis.
template <template <class, Basis, int> class Kernel, class R, class... Args>
auto plain_kernel(const Problem& p, Args... args) {
  return dispatch_axes<Kernel, R, Basis::none>(p, args...);
}

// For a kernel that has neither.
template <template <class, Basis, int> class Kernel, class R, class... Args>
auto one_kernel(const Problem& p, Args... args) {
  return Kernel<R, Basis::none, 1>::run(p, args...);
}
