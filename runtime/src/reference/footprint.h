// What an instruction touches: the one place where the memory operands of every instruction are spelled out.
//
// The reference engine checks these accesses before it makes them; the race checker records them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "bounds.h"
#include "engine.h"

namespace opennpu {

enum class Memory : uint8_t { Spm, Acc, Hbm };

// Runs of `bytes` bytes under a strided walk from `address`, outermost step first.
struct Access {
  const char* operand;  // the field of the instruction, for messages
  Memory memory;
  bool write;
  int64_t address;
  int64_t bytes;
  std::array<Walk, 3> walks{{{1, 0}, {1, 0}, {1, 0}}};
  int64_t alignment = 1;  // of the address and every stride

  bool empty() const {
    return bytes <= 0 || walks[0].count <= 0 || walks[1].count <= 0 || walks[2].count <= 0;
  }
};

// Shape of the matrix unit's stationary tile: what mx_mul touches depends on the last mx_load.
struct Stationary {
  int64_t k = 0, n = 0, dtype = 0;
};

using Visit = std::function<void(const Access&)>;

// Calls `visit` for each access of `op`, empty ones included, a read before the write that may overwrite it.
// Throws Trap for operands that the instruction set forbids whatever the memories hold. Indices (of
// dma_gather, dma_scatter, v_gather) are read after their own access was visited: `visit` must throw if it
// cannot be made.
#define X(NAME)                                                                            \
  void visit_accesses(const Core& core, const isa::NAME& op, const Stationary& stationary, \
                      const Visit& visit);
ONPU_ENGINE_INSTRUCTIONS(X)
X(SLd)
#undef X

// Throws Trap, naming the operand, unless the whole access lies in its memory: below its size in scratchpad
// and accumulator, from the lowest byte to the highest within one buffer of the launch in HBM.
void check_access(const Core& core, const Access& access);

// The i-th index of a dma_gather or dma_scatter, and the HBM address that it selects in `table`.
// Throws Trap when the index is out of range. The list must have been checked.
template <class Op>
int64_t indexed_address(const Core& core, const Op& op, int64_t table, int64_t i);

}  // namespace opennpu
