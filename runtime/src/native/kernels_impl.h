// The kernels of one CPU path. A file that builds a path defines ONPU_PATH, includes this and
// names its table.
#pragma once

#include <algorithm>
#include <string_view>

#include "kernels.h"
#include "multiply_impl.h"
#include "simd.h"
#include "turn_impl.h"
#include "vector_math.h"

namespace opennpu::native::ONPU_PATH {

void narrow(const float* x, uint16_t* bf16, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    bf16[i] = uint16_t(nan ? (bits >> 16) | 0x40 : rounded);
  }
}

// Applies f to whole vectors, and to a padded copy of what is left.
template <typename F>
void map(float* x, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, f(load<Floats>(x + i)));
  if (i == n) return;
  float rest[kLanes] = {};
  std::memcpy(rest, x + i, (n - i) * 4);
  store(rest, f(load<Floats>(rest)));
  std::memcpy(x + i, rest, (n - i) * 4);
}

template <typename F>
void map2(float* a, const float* b, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(a + i, f(load<Floats>(a + i), load<Floats>(b + i)));
  if (i == n) return;
  float x[kLanes] = {}, y[kLanes] = {};
  std::memcpy(x, a + i, (n - i) * 4);
  std::memcpy(y, b + i, (n - i) * 4);
  store(x, f(load<Floats>(x), load<Floats>(y)));
  std::memcpy(a + i, x, (n - i) * 4);
}

inline Floats maximum(Floats a, Floats b) { return select((a > b) | (a != a), a, b); }
inline Floats minimum(Floats a, Floats b) { return select((a < b) | (a != a), a, b); }

struct NamedUnary {
  std::string_view name;
  Kernels::Unary run;
};
struct NamedBinary {
  std::string_view name;
  Kernels::Binary run;
};

// clang-format off
constexpr NamedUnary kUnary[] = {
    {"copy", [](float*, int64_t) {}},
    {"neg", [](float* x, int64_t n) { map(x, n, [](Floats v) { return -v; }); }},
    {"abs", [](float* x, int64_t n) { map(x, n, [](Floats v) { return abs(v); }); }},
    {"square", [](float* x, int64_t n) { map(x, n, [](Floats v) { return v * v; }); }},
    {"sqrt", [](float* x, int64_t n) { map(x, n, [](Floats v) { return sqrt(v); }); }},
    {"rsqrt", [](float* x, int64_t n) { map(x, n, [](Floats v) { return 1.0f / sqrt(v); }); }},
    {"recip", [](float* x, int64_t n) { map(x, n, [](Floats v) { return 1.0f / v; }); }},
    {"relu", [](float* x, int64_t n) { map(x, n, [](Floats v) { return select(v < 0.0f, Floats{}, v); }); }},
    {"exp", [](float* x, int64_t n) { map(x, n, [](Floats v) { return exp(v); }); }},
    {"tanh", [](float* x, int64_t n) { map(x, n, [](Floats v) { return tanh(v); }); }},
    {"sigmoid", [](float* x, int64_t n) { map(x, n, [](Floats v) { return sigmoid(v); }); }},
    {"silu", [](float* x, int64_t n) { map(x, n, [](Floats v) { return silu(v); }); }},
    {"gelu_tanh", [](float* x, int64_t n) { map(x, n, [](Floats v) { return gelu_tanh(v); }); }},
};
constexpr NamedBinary kBinary[] = {
    {"add", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return x + y; }); }},
    {"sub", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return x - y; }); }},
    {"mul", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return x * y; }); }},
    {"div", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return x / y; }); }},
    {"eq", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return select(x == y, splat(1.0f), Floats{}); }); }},
    {"max", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return select(y != y, y, maximum(x, y)); }); }},
    {"min", [](float* a, const float* b, int64_t n) { map2(a, b, n, [](Floats x, Floats y) { return select(y != y, y, minimum(x, y)); }); }},
};
// clang-format on

template <typename Table>
auto find(const Table& table, std::string_view op) -> decltype(table[0].run) {
  for (const auto& entry : table)
    if (entry.name == op) return entry.run;
  return nullptr;
}

inline float halves_sum(float (&lanes)[16]) {
  for (int width = 8; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  return lanes[0];
}

// Lane j of 16 takes the elements j, j+16, …; then the lanes in halves.
template <typename F>
float lanes_sum(const float* x, int64_t n, F add) {
  float lanes[16] = {};
  Floats sums[16 / kLanes] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int v = 0; v < 16 / kLanes; ++v) sums[v] = add(sums[v], load<Floats>(x + i + v * kLanes));
  std::memcpy(lanes, sums, sizeof lanes);
  if (i < n) {
    // Padding is added to lanes that have no element, and x + 0 keeps every x but -0, which a sum
    // that started at +0 never is.
    float rest[16] = {};
    std::memcpy(rest, x + i, (n - i) * 4);
    for (int v = 0; v < 16 / kLanes; ++v) {
      sums[v] = add(sums[v], load<Floats>(rest + v * kLanes));
      store(lanes + v * kLanes, sums[v]);
    }
  }
  return halves_sum(lanes);
}

float sum(const float* x, int64_t n) {
  return lanes_sum(x, n, [](Floats s, Floats v) { return s + v; });
}

float sumsq(const float* x, int64_t n) {
  return lanes_sum(x, n, [](Floats s, Floats v) { return fma(v, v, s); });
}

float max(const float* x, int64_t n) {
  Floats best[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
  Ints nan = {};
  const auto look = [&](Floats& best, Floats v) {
    best = select(v > best, v, best);
    nan |= v != v;
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) look(best[j], load<Floats>(x + i + j * kLanes));
  for (int64_t rest; i < n; i += rest) {
    rest = n - i < kLanes ? n - i : kLanes;
    float padded[kLanes];
    for (int j = 0; j < kLanes; ++j) padded[j] = x[i + (j < rest ? j : 0)];
    look(best[0], load<Floats>(padded));
  }
  look(best[0], best[1]);
  float result = -__builtin_inff();
  for (int j = 0; j < kLanes; ++j) {
    if (nan[j]) return __builtin_nanf("");
    result = best[0][j] > result ? best[0][j] : result;
  }
  return result;
}

// Exponentials and their sum in one pass over whole groups of 16; what is not seen in them is -inf before.
void softmax_row(const SoftmaxRow& r) {
  constexpr int64_t kGroup = 16;
  const int64_t first = r.begin / kGroup * kGroup, last = (r.end + kGroup - 1) / kGroup * kGroup;
  map(r.x + r.begin, r.end - r.begin, [&](Floats v) { return v * r.scale; });
  std::fill(r.x + first, r.x + r.begin, -__builtin_inff());
  std::fill(r.x + r.end, r.x + last, -__builtin_inff());
  const float best = max(r.x + first, last - first);
  const float m = best > *r.m || best != best ? best : *r.m;
  const float shift = m == -__builtin_inff() ? 0.0f : m;
  Floats sums[kGroup / kLanes] = {};
  for (int64_t i = first; i < last; i += kGroup)
    for (int v = 0; v < kGroup / kLanes; ++v) {
      const Floats e = exp(load<Floats>(r.x + i + v * kLanes) - shift);
      store(r.x + i + v * kLanes, e);
      sums[v] += e;
    }
  *r.alpha = m == -__builtin_inff() ? 1.0f : exp(splat(*r.m - m))[0];
  std::memset(r.x, 0, first * 4);
  if (last < r.n) std::memset(r.x + last, 0, (r.n - last) * 4);
  float lanes[kGroup];
  std::memcpy(lanes, sums, sizeof lanes);
  *r.l = *r.l * *r.alpha + halves_sum(lanes);
  *r.m = m;
}

constexpr Kernels table(const char* path) {
  return {path,
          multiply<Bf16Strip>,
          multiply<F32Strip>,
          turn,
          widen,
          narrow,
          [](std::string_view op) { return find(kUnary, op); },
          [](std::string_view op) { return find(kBinary, op); },
          sum,
          sumsq,
          max,
          softmax_row};
}

}  // namespace opennpu::native::ONPU_PATH
