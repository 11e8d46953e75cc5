// Elements of tiles: addressing, dtypes and the casts between them.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "engine.h"

namespace opennpu::reference {

/// Bools count as integers.
inline bool is_integer(int64_t dtype) {
  return dtype != static_cast<int64_t>(isa::Dtype::F32) && dtype != static_cast<int64_t>(isa::Dtype::Bf16);
}

/// Values of K that lie side by side in the packed layout.
inline int64_t packed_pair(const npu_chip_desc& chip, int64_t dtype) {
  return dtype == static_cast<int64_t>(isa::Dtype::Bf16) ? chip.pair : 1;
}

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// Rounds to nearest even. Every NaN becomes 0x7fc0.
inline uint16_t f32_to_bf16(float value) {
  if (value != value) return 0x7fc0;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Truncates and saturates to [lowest, highest] of T; NaN gives 0.
template <class T>
T saturate(float value) {
  if (value != value) return 0;
  constexpr float highest = -static_cast<float>(std::numeric_limits<T>::min());  // one above the greatest T
  if (value >= highest) return std::numeric_limits<T>::max();
  if (value < -highest) return std::numeric_limits<T>::min();
  return static_cast<T>(value);
}

template <class T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
void write(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

/// An element of an integer or bool dtype; a bool is 0 or 1 whatever its byte holds.
inline int64_t load_integer(int64_t dtype, const std::byte* at) {
  switch (static_cast<isa::Dtype>(dtype)) {
    case isa::Dtype::I64:
      return read<int64_t>(at);
    case isa::Dtype::I32:
      return read<int32_t>(at);
    case isa::Dtype::I8:
      return read<int8_t>(at);
    default:
      return read<uint8_t>(at) != 0;
  }
}

/// An element of any dtype in f32; integers are rounded to nearest even.
inline float load_float(int64_t dtype, const std::byte* at) {
  if (is_integer(dtype)) return static_cast<float>(load_integer(dtype, at));
  return dtype == static_cast<int64_t>(isa::Dtype::F32) ? read<float>(at) : bf16_to_f32(read<uint16_t>(at));
}

/// Casts a float to the dtype of the destination. Every NaN is stored as the quiet NaN 0x7fc00000: which NaN
/// an operation gives differs between hosts.
inline void store(int64_t dtype, std::byte* at, float value) {
  switch (static_cast<isa::Dtype>(dtype)) {
    case isa::Dtype::F32:
      return write(at, value != value ? std::bit_cast<float>(0x7fc00000) : value);
    case isa::Dtype::Bf16:
      return write(at, f32_to_bf16(value));
    case isa::Dtype::I64:
      return write(at, saturate<int64_t>(value));
    case isa::Dtype::I32:
      return write(at, saturate<int32_t>(value));
    case isa::Dtype::I8:
      return write(at, saturate<int8_t>(value));
    case isa::Dtype::Bool:
      return write<uint8_t>(at, value != 0);
  }
}

/// Casts an integer to the dtype of the destination; a narrower integer keeps the low bits.
inline void store(int64_t dtype, std::byte* at, int64_t value) {
  switch (static_cast<isa::Dtype>(dtype)) {
    case isa::Dtype::F32:
    case isa::Dtype::Bf16:
      return store(dtype, at, static_cast<float>(value));
    case isa::Dtype::I64:
      return write(at, value);
    case isa::Dtype::I32:
      return write(at, static_cast<int32_t>(value));
    case isa::Dtype::I8:
      return write(at, static_cast<int8_t>(value));
    case isa::Dtype::Bool:
      return write<uint8_t>(at, value != 0);
  }
}

/// Host address of element (i0, i1, i2) of a checked tile.
inline std::byte* element(const Core& core, const isa::Tile& tile, int64_t i0, int64_t i1, int64_t i2) {
  std::byte* base = tile.space == static_cast<int64_t>(isa::Space::Spm) ? core.memory.spm : core.memory.acc;
  return base + tile.addr + i0 * tile.s0 + i1 * tile.s1 + i2 * tile.s2;
}

/// Casts an element of `dtype` at `from` into one of `to_dtype` at `to`.
inline void cast(int64_t to_dtype, std::byte* to, int64_t dtype, const std::byte* from) {
  if (is_integer(dtype))
    store(to_dtype, to, load_integer(dtype, from));
  else
    store(to_dtype, to, load_float(dtype, from));
}

/// Calls body(i0, i1, i2) for every index, the last fastest; not at all when an extent is ≤ 0.
template <class Body>
void for_each_element(int64_t d0, int64_t d1, int64_t d2, Body&& body) {
  if (d1 <= 0 || d2 <= 0) return;  // d0 may be anything then
  for (int64_t i0 = 0; i0 < d0; ++i0)
    for (int64_t i1 = 0; i1 < d1; ++i1)
      for (int64_t i2 = 0; i2 < d2; ++i2) body(i0, i1, i2);
}

}  // namespace opennpu::reference
