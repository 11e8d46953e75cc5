// Transposition of 32-bit words on one CPU path, for the stationary tile.
#pragma once

#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace opennpu::native::ONPU_PATH {

// Four words of columns 0 and, in the upper half of a vector of eight, 4.
inline Ints four_words(const std::byte* const* columns, int64_t offset) {
#if ONPU_LANES == 8
  return Ints(_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(columns[4] + offset),
                                  reinterpret_cast<const __m128i*>(columns[0] + offset)));
#else
  return load<Ints>(columns[0] + offset);
#endif
}

// 4 × 4 words transposed at a time in each half of a vector.
int64_t turn(std::byte* strip, const std::byte* const* columns, int64_t words) {
  int64_t k = 0;
  for (; k + 4 <= words; k += 4)
    for (int64_t c = 0; c < kStrip; c += kLanes) {
      const Ints r0 = four_words(columns + c, k * 4), r1 = four_words(columns + c + 1, k * 4);
      const Ints r2 = four_words(columns + c + 2, k * 4), r3 = four_words(columns + c + 3, k * 4);
      const Ints low01 = low_words(r0, r1), low23 = low_words(r2, r3);
      const Ints high01 = high_words(r0, r1), high23 = high_words(r2, r3);
      const Ints turned[] = {low_pairs(low01, low23), high_pairs(low01, low23), low_pairs(high01, high23),
                             high_pairs(high01, high23)};
      for (int64_t i = 0; i < 4; ++i) store(strip + ((k + i) * kStrip + c) * 4, turned[i]);
    }
  return k;
}

}  // namespace opennpu::native::ONPU_PATH
