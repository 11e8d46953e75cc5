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

// The words, or pairs of them, of the low and high halves of both in turn; in each 128 bits.
#if ONPU_LANES == 8
inline Ints low_words(Ints a, Ints b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13); }
inline Ints high_words(Ints a, Ints b) { return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15); }
inline Ints low_pairs(Ints a, Ints b) { return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13); }
inline Ints high_pairs(Ints a, Ints b) { return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15); }
#else
inline Ints low_words(Ints a, Ints b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
inline Ints high_words(Ints a, Ints b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
inline Ints low_pairs(Ints a, Ints b) { return __builtin_shufflevector(a, b, 0, 1, 4, 5); }
inline Ints high_pairs(Ints a, Ints b) { return __builtin_shufflevector(a, b, 2, 3, 6, 7); }
#endif

// The two bf16 values of each 32-bit lane, the one at the lower address first.
inline Floats low_bf16(Ints pair) { return Floats(pair << 16); }
inline Floats high_bf16(Ints pair) { return Floats(pair & int32_t(0xffff0000)); }

}  // namespace opennpu::native::ONPU_PATH
