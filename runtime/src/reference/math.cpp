#include "math.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace opennpu::math {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kPi2 = 1.57079632679489661923;        // pi / 2
constexpr double kPi4 = 0.78539816339744830962;        // pi / 4
constexpr double kSqrt2 = 1.41421356237309504880;      // sqrt 2
constexpr double kInvSqrtPi = 0.56418958354775628695;  // 1 / sqrt pi
constexpr double kLn2Hi = 0x1.62e42fee00000p-1;        // ln 2 = hi + lo; k·hi is exact for |k| < 2^21
constexpr double kLn2Lo = 0x1.a39ef35793c76p-33;
constexpr double kInvLn2 = 1.44269504088896340736;

/// 2^k for -1022 <= k <= 1023.
double power_of_two(int k) { return std::bit_cast<double>(static_cast<uint64_t>(k + 1023) << 52); }

/// 1/0!, 1/1!, …: the Taylor coefficients of exp, sin and cos.
constexpr auto kInvFactorial = [] {
  std::array<double, 20> table{};
  double factorial = 1;  // 19! < 2^57 is exact: its odd part has fewer than 53 bits
  for (int n = 0; n < 20; ++n) {
    if (n > 0) factorial *= n;
    table[n] = 1 / factorial;
  }
  return table;
}();

/// sin and cos on [-pi/4, pi/4].
double sin_kernel(double r) {
  const double r2 = r * r;
  double sum = 0;
  for (int n = 17; n >= 1; n -= 2) sum = ((n / 2) % 2 ? -kInvFactorial[n] : kInvFactorial[n]) + sum * r2;
  return r * sum;
}

double cos_kernel(double r) {
  const double r2 = r * r;
  double sum = 0;
  for (int n = 18; n >= 0; n -= 2) sum = ((n / 2) % 2 ? -kInvFactorial[n] : kInvFactorial[n]) + sum * r2;
  return sum;
}

/// x = quadrant·pi/2 + rest, |rest| <= pi/4. For pi/4 < |x| < inf.
///
/// Payne and Hanek 1983: x = m·2^e, so x·2/pi mod 4 needs only a window of the bits of 2/pi. The window is
/// taken as w = floor(2/pi·2^(e+126)) mod 2^128; then m·w mod 2^128 is x·2/pi mod 4 in units of 2^-126.
struct Reduced {
  int quadrant;
  double rest;
};

Reduced reduce_quadrant(float x) {
  static constexpr std::array<uint64_t, 4> kTwoOverPi = {0xfe5163abdebbc561, 0xdb6295993c439041,
                                                         0xfc2757d1f534ddc0, 0xa2f9836e4e441529};
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t mantissa = (bits & 0x7fffff) | 0x800000;
  const int shift = 130 - (static_cast<int>(bits >> 23 & 0xff) - 150);
  unsigned __int128 window = 0;
  for (int word = 2; word-- > 0;) {
    const int at = shift + 64 * word, low = at / 64, part = at % 64;
    const uint64_t lower = low < 4 ? kTwoOverPi[low] : 0, upper = low < 3 ? kTwoOverPi[low + 1] : 0;
    window = window << 64 | (part == 0 ? lower : lower >> part | upper << (64 - part));
  }
  const unsigned __int128 turns = window * mantissa;
  int quadrant = static_cast<int>(turns >> 126);
  const auto fraction = static_cast<__int128>(turns << 2);  // signed: in units of 2^-128, from -1/2 to 1/2
  if (fraction < 0) ++quadrant;
  double rest = static_cast<double>(fraction) * power_of_two(-128) * kPi2;
  if (bits >> 31) quadrant = -quadrant, rest = -rest;
  return {quadrant & 3, rest};
}

bool is_odd_integer(float y) {
  return std::fabs(y) < 0x1p24f && std::trunc(y) == y && std::fmod(y, 2.0f) != 0;
}

}  // namespace

double exp(double x) {
  if (x != x) return x;
  if (x < -708) return 0;
  if (x > 709) return kInf;
  const double k = std::nearbyint(x * kInvLn2);
  const double r = (x - k * kLn2Hi) - k * kLn2Lo;
  double sum = kInvFactorial[14];
  for (int n = 13; n >= 0; --n) sum = kInvFactorial[n] + sum * r;
  const int half = static_cast<int>(k) / 2;  // in two steps: 2^k alone may be out of range
  return sum * power_of_two(half) * power_of_two(static_cast<int>(k) - half);
}

double log(double x) {
  if (x != x || x < 0) return kNaN;
  if (x == 0) return -kInf;
  if (x == kInf) return x;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (m > kSqrt2) m /= 2, ++exponent;
  const double f = (m - 1) / (m + 1), f2 = f * f;  // ln m = 2 artanh f
  double sum = 0;
  for (int n = 21; n >= 1; n -= 2) sum = 1.0 / n + sum * f2;
  return exponent * kLn2Hi + (exponent * kLn2Lo + 2 * f * sum);
}

double tanh(double x) {
  const double size = std::fabs(x);
  if (size < 0x1p-13) return x - x * x * x / 3;
  if (size > 20) return x > 0 ? 1 : -1;
  const double e = exp(2 * x);
  return (e - 1) / (e + 1);
}

double erf(double x) {
  if (x != x) return x;
  if (std::fabs(x) > 2) return x > 0 ? 1 - erfc(x) : erfc(-x) - 1;
  // 2/sqrt(pi)·exp(-x²)·Σ 2^n x^(2n+1) / (2n+1)!!: all terms have one sign (Abramowitz and Stegun 7.1.6).
  double sum = 0, term = x;
  for (int n = 1; n <= 40; ++n) {
    sum += term;
    term *= 2 * x * x / (2 * n + 1);
  }
  return 2 * kInvSqrtPi * exp(-x * x) * sum;
}

double erfc(double x) {
  if (!(x > 2)) return 1 - erf(x);
  if (x > 26) return 0;
  double tail = x;  // Laplace's continued fraction (Abramowitz and Stegun 7.1.14), from the inside out
  for (int n = 60; n >= 1; --n) tail = x + n * 0.5 / tail;
  return kInvSqrtPi * exp(-x * x) / tail;
}

double sigmoid(double x) { return 1 / (1 + exp(-x)); }

double gelu(double x) { return 0.5 * x * erfc(-x / kSqrt2); }

double gelu_tanh(double x) {
  // 0.5·(1 + tanh u) = sigmoid(2u), without the cancellation for u < 0.
  return x * sigmoid(2 * kSqrt2 * kInvSqrtPi * (x + 0.044715 * x * x * x));
}

double sin(float x) {
  if (!(std::fabs(x) < std::numeric_limits<float>::infinity())) return kNaN;
  if (std::fabs(x) <= kPi4) return sin_kernel(x);
  const auto [quadrant, rest] = reduce_quadrant(x);
  const double value = quadrant % 2 ? cos_kernel(rest) : sin_kernel(rest);
  return quadrant >= 2 ? -value : value;
}

double cos(float x) {
  if (!(std::fabs(x) < std::numeric_limits<float>::infinity())) return kNaN;
  if (std::fabs(x) <= kPi4) return cos_kernel(x);
  const auto [quadrant, rest] = reduce_quadrant(x);
  const double value = quadrant % 2 ? sin_kernel(rest) : cos_kernel(rest);
  return quadrant == 1 || quadrant == 2 ? -value : value;
}

double pow(float x, float y) {
  if (x == 1 || y == 0) return 1;
  if (x != x || y != y) return kNaN;
  const double sign = std::signbit(x) && is_odd_integer(y) ? -1 : 1;
  const double base = std::fabs(static_cast<double>(x));
  if (std::isinf(y)) return base == 1 ? 1 : (base > 1) == (y > 0) ? kInf : 0;
  if (base == 0 || base == kInf) return (base == 0) == (y > 0) ? sign * 0.0 : sign * kInf;
  if (x < 0 && std::trunc(y) != y) return kNaN;
  return sign * exp(y * log(base));
}

}  // namespace opennpu::math
