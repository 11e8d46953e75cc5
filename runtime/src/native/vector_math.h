// Elementary functions on vectors of floats, within the bounds of v_unary.
// Polynomials: Cephes (Moshier), single precision.
#pragma once

#include "simd.h"

namespace opennpu::native::ONPU_PATH {

constexpr float kLeast = -110;  // e^x and x·e^x are 0 below it

// y·e^x: y·e^r·2^n with |r| ≤ ln 2 / 2; the power is applied in two halves so that subnormal
// results round once.
inline Floats times_exp(Floats y, Floats x) {
  const Floats clamped = select(x > 89.0f, splat(89.0f), select(x < kLeast, splat(kLeast), x));
  const Floats shift = splat(12582912.0f);  // 1.5·2^23: adding it rounds to an integer
  const Floats n = fma(clamped, splat(1.44269504088896341f), shift) - shift;
  const Floats r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), clamped));
  Floats p = splat(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fma(p, r, splat(c));
  p = fma(p, r * r, r) + 1.0f;
  const Ints power = __builtin_convertvector(n, Ints);
  const Ints half = power >> 1;
  const Floats scaled = y * p * Floats((half + 127) << 23) * Floats((power - half + 127) << 23);
  return select(x == x, scaled, x);
}

inline Floats exp(Floats x) { return times_exp(splat(1.0f), x); }

inline Floats tanh(Floats x) {
  const Floats a = abs(x), squared = x * x;
  Floats p = splat(-5.70498872745e-3f);
  for (float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f})
    p = fma(p, squared, splat(c));
  const Floats small = fma(p * squared, x, x);
  const Floats large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  const Floats signed_large = Floats(Ints(large) | (Ints(x) & int32_t(0x80000000)));
  return select(a < 0.625f, small, signed_large);
}

// Written with e^-|x|, so that neither side overflows or loses its small values.
inline Floats sigmoid(Floats x) {
  const Floats e = exp(-abs(x));
  return select(x >= 0.0f, splat(1.0f), e) / (1.0f + e);
}

// x·e^x at once for x < 0: a subnormal e^x has lost bits that the product would show.
inline Floats silu(Floats x) {
  const Floats negative = select(x > kLeast, times_exp(x, -abs(x)), x * 0.0f);
  return select(x >= 0.0f, x, negative) / (1.0f + exp(-abs(x)));
}

inline Floats gelu_tanh(Floats x) {
  const Floats inner = 0.7978845608028654f * fma(x * x * x, splat(0.044715f), x);
  return 0.5f * x * (1.0f + tanh(inner));
}

}  // namespace opennpu::native::ONPU_PATH
