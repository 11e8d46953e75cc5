// Elementary functions in plain IEEE double arithmetic.
//
// Only + - * / sqrt, fma and exact conversions are used, never the host's libm, so a result has the same
// bits on every host. Built with -ffp-contract=off. Every function is good to well under 2^-40 relative error
// (2^-40 absolute near a zero of sin and cos, relative for f32 arguments), which rounds to within 1 ulp of
// f32.
#pragma once

namespace opennpu::math {

/// e^x; 0 below -708, +inf above 709 (far outside what an f32 result needs).
double exp(double x);

/// ln x for normal x > 0; -inf at 0, NaN below, +inf at +inf.
double log(double x);

double tanh(double x);

double erf(double x);

/// 1 - erf(x) with small relative error in the tail.
double erfc(double x);

/// 1 / (1 + e^-x).
double sigmoid(double x);

/// x·Φ(x), and its approximation by tanh (Hendrycks and Gimpel 2016). NaN at -inf, like x·0.
double gelu(double x);
double gelu_tanh(double x);

/// Any finite f32, however large: the argument is reduced with 256 bits of 2/pi.
double sin(float x);
double cos(float x);

/// C's pow with its special cases.
double pow(float x, float y);

}  // namespace opennpu::math
