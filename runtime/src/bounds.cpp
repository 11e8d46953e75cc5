#include "bounds.h"

#include <cstdio>
#include <limits>
#include <string>

namespace opennpu {

namespace {

using Wide = __int128;

constexpr Wide kLimit = std::numeric_limits<int64_t>::max();

const char* const kSpaceTitles[] = {"scratchpad", "accumulator"};

std::string hex(int64_t value) {
  char text[24];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

Extent strided_extent(int64_t address, int64_t bytes, std::initializer_list<Walk> walks) {
  if (bytes <= 0) return {};
  for (const Walk& walk : walks) {
    if (walk.count <= 0) return {};
  }
  Wide begin = address, end = Wide(address) + bytes, touched = bytes;
  for (const Walk& walk : walks) {
    touched *= walk.count;
    if (touched > kMaxTouchedBytes) {
      throw Trap{"operand at " + hex(address) + " touches more than " + std::to_string(kMaxTouchedBytes) +
                 " bytes in one instruction"};
    }
    const Wide reach = Wide(walk.count - 1) * walk.stride;
    (reach < 0 ? begin : end) += reach;
    if (begin < 0 || end > kLimit) {
      throw Trap{"operand at " + hex(address) + " reaches outside the address space: " +
                 std::to_string(walk.count) + " steps of " + std::to_string(walk.stride) + " bytes"};
    }
  }
  if (begin < 0 || end > kLimit) throw Trap{"operand at " + hex(address) + " is outside the address space"};
  return {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
}

Extent tile_extent(const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2) {
  return strided_extent(tile.addr, dtype_size(tile.dtype), {{d0, tile.s0}, {d1, tile.s1}, {d2, tile.s2}});
}

std::byte* check_memory(const Core& core, isa::Space space, const Extent& extent) {
  const bool spm = space == isa::Space::Spm;
  const size_t size = spm ? core.memory.spm_bytes : core.memory.acc_bytes;
  if (!extent.empty() && static_cast<uint64_t>(extent.end) > size) {
    throw Trap{"bytes " + hex(extent.begin) + " to " + hex(extent.end) + " lie outside the " +
               kSpaceTitles[static_cast<int>(space)] + " of " + std::to_string(size) + " bytes"};
  }
  return spm ? core.memory.spm : core.memory.acc;
}

void check_aligned(int64_t address_and_strides, int64_t dtype) {
  if (address_and_strides % dtype_size(dtype) != 0) {
    throw Trap{std::string("the address or a stride of an operand is not a multiple of its element size (") +
               isa::kDtypeNames[dtype] + ")"};
  }
}

std::byte* check_tile(const Core& core, const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2) {
  const Extent extent = tile_extent(tile, d0, d1, d2);
  if (extent.empty()) return nullptr;
  std::byte* base = check_memory(core, static_cast<isa::Space>(tile.space), extent);
  check_aligned(tile.addr | tile.s0 | tile.s1 | tile.s2, tile.dtype);
  return base + tile.addr;
}

}  // namespace opennpu
