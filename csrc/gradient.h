// What a cell's gradient needs of one sample, from the gradient g by its position y and, of the gaussian basis, its
// standard normals n and the root of Q = sum w^2: dL/dz_i = w_i (sum_a slope_a position_ia + offset + curve w_i) with
// the weights w as summed, whose `inverse` is 1 / sum w; `chain` is beta / tau times that. Equations (10)-(12) of
// reference/README.md. No include guard (see philox.h).

template <class T, int axes>
struct SampleGradient {
  T slope[axes], offset = 0, curve = 0, sigma = 0;  // sigma: dL/dsigma

  SA_INLINE SampleGradient(const T (&g)[axes], const T (&y)[axes], T chain) {
    for (int axis = 0; axis < axes; ++axis) {
      slope[axis] = g[axis] * chain;
      offset -= g[axis] * y[axis];
    }
    offset *= chain;
  }

  SA_INLINE void add_gaussian(const T (&g)[axes], const T (&n)[axes], T width, T root, T chain, T inverse) {
    T noise = 0;
    for (int axis = 0; axis < axes; ++axis) noise += g[axis] * n[axis];
    sigma = noise * root;
    curve = noise * width / root * chain * inverse;
  }
};
