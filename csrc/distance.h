// Distance of a sample to the target and its slope; difference = sample - target. Equations (14)-(15) of
// reference/README.md. No include guard (see philox.h).

template <int axes, class T>
SA_INLINE T distance(Metric metric, const T (&difference)[axes], T (&slope)[axes]) {
  T total = 0, norm = 0;
  if (metric == Metric::euclidean) {
    double square = 0;  // that of 1e30 is no float
    for (T x : difference) square += double(x) * double(x);
    norm = T(sqrt(square));
  }
  for (int axis = 0; axis < axes; ++axis) {
    const T x = difference[axis], size = abs(x);
    const T sign = x > 0 ? T(1) : x < 0 ? T(-1) : x;  // NaN stays NaN
    switch (metric) {
      case Metric::l1: total += size, slope[axis] = sign; break;
      case Metric::l2: total += x * x, slope[axis] = 2 * x; break;
      case Metric::euclidean: slope[axis] = norm > 0 ? x / norm : norm; break;
      case Metric::smooth_l1:
        total += size < 1 ? T(0.5) * x * x : size - T(0.5);
        slope[axis] = size < 1 ? x : sign;
        break;
    }
  }
  return metric == Metric::euclidean ? norm : total;
}
