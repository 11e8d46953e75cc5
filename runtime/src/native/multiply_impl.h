// The matrix unit on one CPU path: rows × k times a stationary tile in strips of 16 columns.
//
// A block of rows × one strip (more strips where rows are few) stays in registers for all of k; a
// strip of bf16 is 4 KiB and stays in the first-level cache for all rows. Each element is one chain of
// multiply-adds over ascending k whatever the blocks are, so results do not depend on them.
// Source of the blocking: Goto and van de Geijn 2008, BLIS (Van Zee and van de Geijn 2015).
#pragma once

#include <cstring>

#include "kernels.h"
#include "simd.h"

namespace opennpu::native::ONPU_PATH {

inline constexpr int kVectors = kStrip / kLanes;         // vectors a strip
inline constexpr int kMostRows = kLanes == 8 ? 6 : 2;    // of a block: 12 of 16 registers are sums
inline constexpr int kMostStrips = kLanes == 8 ? 4 : 2;  // of a block of one row
static_assert(kPanelRows >= kMostRows);

// The stationary tile as f32 vectors, by storage type: `kStep` values of k lie side by side.
struct Bf16Strip {
  static constexpr int kStep = kPair;
  using Element = uint16_t;
  static Floats at(const std::byte* group, int vector, int step) {
    const Ints bits = load<Ints>(group + vector * kLanes * 4);
    return step == 0 ? low_bf16(bits) : high_bf16(bits);
  }
};

struct F32Strip {
  static constexpr int kStep = 1;
  using Element = float;
  static Floats at(const std::byte* group, int vector, int) {
    return load<Floats>(group + vector * kLanes * 4);
  }
};

// The operands of a block. `x` is f32, rows `ldx` floats apart.
struct Block {
  const float* x;
  int64_t ldx;
  const std::byte* weights;
  int64_t strip_stride, k;
  std::byte* acc;
  int64_t acc_stride;
  bool accumulate;
};

// R rows × S strips.
template <typename Strip, int R, int S>
void multiply_block(const Block& b) {
  constexpr int V = S * kVectors;
  Floats sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
      sum[r][v] = b.accumulate ? load<Floats>(b.acc + r * b.acc_stride + v * kLanes * 4) : Floats{};

  const float* x = b.x;
  const std::byte* group = b.weights;
  const int64_t ldx = b.ldx, stride = b.strip_stride, ahead = S * stride;
  auto step = [&](int j) __attribute__((always_inline)) {
    const auto weight = [&](int v) { return Strip::at(group + v / kVectors * stride, v % kVectors, j); };
    if constexpr (R < V) {  // the fewer stay in registers, the others come one by one
      Floats value[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) value[r] = splat(x[r * ldx + j]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        const Floats w = weight(v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) multiply_add(sum[r][v], value[r], w);
      }
    } else {
      Floats w[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) w[v] = weight(v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Floats value = splat(x[r * ldx + j]);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) multiply_add(sum[r][v], value, w[v]);
      }
    }
  };
  int64_t i = 0;
  for (; i + Strip::kStep <= b.k; i += Strip::kStep) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) __builtin_prefetch(group + ahead + s * stride);
#pragma GCC unroll 2
    for (int j = 0; j < Strip::kStep; ++j) step(j);
    x += Strip::kStep;
    group += kStrip * 4;
  }
  if (i < b.k) step(0);

#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(b.acc + r * b.acc_stride + v * kLanes * 4, sum[r][v]);
}

// One strip for `rows` rows, in blocks of about the same height.
template <typename Strip, int R = kMostRows>
void multiply_rows(Block b, int64_t rows) {
  constexpr auto block = [](const Block& b, int64_t height) {
    auto run = [&]<int H>(auto& self) {
      if (height == H) return multiply_block<Strip, H, 1>(b);
      if constexpr (H > 1) self.template operator()<H - 1>(self);
    };
    run.template operator()<kMostRows>(run);
  };
  for (int64_t blocks = (rows + kMostRows - 1) / kMostRows; blocks > 0; --blocks) {
    const int64_t height = (rows + blocks - 1) / blocks;
    block(b, height);
    b.x += height * b.ldx;
    b.acc += height * b.acc_stride;
    rows -= height;
  }
}

// The columns of the last strip when n is no multiple of 16: by way of a buffer, so that nothing beyond n
// is touched.
template <typename Strip>
void multiply_tail(Block b, int64_t rows, int64_t columns) {
  for (int64_t first = 0; first < rows; first += kMostRows) {
    const int64_t height = rows - first < kMostRows ? rows - first : kMostRows;
    float buffer[kMostRows][kStrip] = {};
    std::byte* acc = b.acc + first * b.acc_stride;
    if (b.accumulate)
      for (int64_t r = 0; r < height; ++r) std::memcpy(buffer[r], acc + r * b.acc_stride, columns * 4);
    Block block = b;
    block.x += first * b.ldx;
    block.acc = reinterpret_cast<std::byte*>(buffer);
    block.acc_stride = sizeof buffer[0];
    multiply_rows<Strip>(block, height);
    for (int64_t r = 0; r < height; ++r) std::memcpy(acc + r * b.acc_stride, buffer[r], columns * 4);
  }
}

// R rows, S strips at a time while they last; returns the strips that are done.
template <typename Strip, int R, int S>
int64_t multiply_wide(Block b, int64_t strips) {
  int64_t done = 0;
  for (; done + S <= strips; done += S) {
    multiply_block<Strip, R, S>(b);
    b.weights += S * b.strip_stride;
    b.acc += S * kStrip * 4;
  }
  return done;
}

void widen(const uint16_t* bf16, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = uint32_t(bf16[i]) << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

void to_f32(const std::byte* row, float* out, int64_t k, uint16_t) {
  widen(reinterpret_cast<const uint16_t*>(row), out, k);
}
void to_f32(const std::byte* row, float* out, int64_t k, float) { std::memcpy(out, row, k * 4); }

template <typename Strip>
void multiply(const Multiply& m) {
  for (int64_t first = 0; first < m.rows; first += kPanelRows) {
    const int64_t rows = m.rows - first < kPanelRows ? m.rows - first : kPanelRows;
    for (int64_t r = 0; r < rows; ++r)
      to_f32(m.x + (first + r) * m.x_stride, m.scratch + r * m.k, m.k, typename Strip::Element{});
    const Block b{m.scratch,    m.k,         m.weights, m.strip_stride, m.k, m.acc + first * m.acc_stride,
                  m.acc_stride, m.accumulate};
    const int64_t strips = m.n / kStrip;
    const auto at = [&b](int64_t s) {
      Block strip = b;
      strip.weights += s * b.strip_stride;
      strip.acc += s * kStrip * 4;
      return strip;
    };
    int64_t s = 0;
    if (rows == 1) {
      s = multiply_wide<Strip, 1, kMostStrips>(b, strips);
      s += multiply_wide<Strip, 1, kMostStrips / 2>(at(s), strips - s);
    } else if (rows == 2) {
      s = multiply_wide<Strip, 2, kMostStrips / 2>(b, strips);
    } else if (rows == 3) {
      s = multiply_wide<Strip, 3, kMostStrips / 2>(b, strips);
    }
    for (; s < strips; ++s) multiply_rows<Strip>(at(s), rows);
    if (m.n % kStrip) multiply_tail<Strip>(at(s), rows, m.n % kStrip);
  }
}

}  // namespace opennpu::native::ONPU_PATH
