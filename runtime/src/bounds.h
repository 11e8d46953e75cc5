// Checks of operands against the memories, shared by the engines and the race checker. All
// arithmetic on what a program supplied is done in 128 bits, so that nothing can wrap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>

#include "engine.h"

namespace opennpu {

// Bytes of one element of a dtype of the instruction set.
constexpr int64_t dtype_size(int64_t dtype) {
  constexpr int64_t sizes[] = {4, 2, 8, 4, 1, 1};
  static_assert(std::size(sizes) == std::size(isa::kDtypeNames));
  return sizes[dtype];
}

// The bytes [begin, end) that an operand touches; empty when begin == end.
struct Extent {
  int64_t begin = 0, end = 0;
  bool empty() const { return begin == end; }
};

// The most that an operand of one instruction may touch, counting repeats: far above what the
// memories hold, and low enough that no instruction runs for long.
inline constexpr int64_t kMaxTouchedBytes = int64_t{1} << 26;

// One level of a strided walk: `count` steps of `stride` bytes.
struct Walk {
  int64_t count, stride;
};

// The bytes that runs of `bytes` bytes touch under a strided walk from `address`. A count or
// size ≤ 0 touches nothing. Throws Trap when the extent does not fit 63 bits, or more than
// kMaxTouchedBytes bytes are touched.
Extent strided_extent(int64_t address, int64_t bytes, std::initializer_list<Walk> walks);

// The bytes of a tile of d0 × d1 × d2 elements.
Extent tile_extent(const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2);

// Host address of byte 0 of the scratchpad or the accumulator (an isa::Space) after checking
// that `extent` lies within it. An empty extent passes. Throws Trap.
std::byte* check_memory(const Core& core, isa::Space space, const Extent& extent);

// Throws Trap unless address and strides, or-ed together, are multiples of the element size.
void check_aligned(int64_t address_and_strides, int64_t dtype);

// Checks the whole tile, and that its address and strides are multiples of its element size;
// returns the host address of element (0, 0, 0), nullptr for an empty tile.
std::byte* check_tile(const Core& core, const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2);

}  // namespace opennpu
