// A vector of floats as wide as the file's CPU flags allow, and what C++ operators do not say
// of it. Included only by the kernel files; everything sits in a namespace of the path's own,
// since the same names are compiled with different flags.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define ONPU_LANES 8
#else
#define ONPU_LANES 4
#endif

namespace opennpu::native::ONPU_PATH {

inline constexpr int kLanes = ONPU_LANES;
typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

inline Floats splat(float x) { return x - Floats{}; }

template <typename V, typename T>
inline V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename V, typename T>
inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// a·b + c; one rounding where the CPU has it.
inline Floats fma(Floats a, Floats b, Floats c) {
#if ONPU_LANES == 8
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// sum += a·b in place: left to itself, GCC moves the sums of a loop from register to register until it has
// none left.
inline void multiply_add(Floats& sum, Floats a, Floats b) {
#if ONPU_LANES == 8
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#else
  sum = fma(a, b, sum);
#endif
}

inline Floats sqrt(Floats x) {
#if ONPU_LANES == 8
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

inline Floats select(Ints mask, Floats a, Floats b) { return mask ? a : b; }
inline Floats abs(Floats x) { return Floats(Ints(x) & 0x7fffffff); }

// The two bf16 values of each 32-bit lane, the one at the lower address first.
inline Floats low_bf16(Ints pair) { return Floats(pair << 16); }
inline Floats high_bf16(Ints pair) { return Floats(pair & int32_t(0xffff0000)); }

}  // namespace opennpu::native::ONPU_PATH
