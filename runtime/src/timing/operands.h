// What instructions touch in scratchpad and accumulator, as far as the timing model asks: not which bytes an
// index selects, because indices may be data.
#pragma once

#include <type_traits>

#include "../reference/footprint.h"

namespace opennpu::timing {

// Calls `visit` for each access of `op` to the memories of its core. Throws Trap as visit_accesses does.
template <typename I, typename Visit>
void visit_local(const Core& core, const I& op, const Stationary& stationary, const Visit& visit) {
  const auto run = [&](int64_t address, int64_t bytes, std::array<Walk, 3> walks, bool write) {
    visit(Access{"", Memory::Spm, write, address, bytes, walks});
  };
  if constexpr (std::is_same_v<I, isa::DmaGather>) {
    run(op.dst, op.row_bytes, {{{1, 0}, {op.count, op.dst_index_stride}, {op.rows, op.dst_row_stride}}},
        true);
  } else if constexpr (std::is_same_v<I, isa::DmaScatter>) {
    run(op.src, op.row_bytes, {{{1, 0}, {op.count, op.src_index_stride}, {op.rows, op.src_row_stride}}},
        false);
  } else if constexpr (std::is_same_v<I, isa::VGather>) {
    const auto tile = [&](const isa::Tile& t, int64_t last, bool write) {
      const Memory memory = t.space == static_cast<int64_t>(isa::Space::Spm) ? Memory::Spm : Memory::Acc;
      const Access access{
          "", memory, write, t.addr, dtype_size(t.dtype), {{{op.d0, t.s0}, {op.d1, t.s1}, {last, t.s2}}}};
      visit(access);
    };
    tile(op.index, op.d2, false);
    tile(op.a, op.d2 > 0 ? op.limit : 0, false);
    tile(op.dst, op.d2, true);
  } else {
    visit_accesses(core, op, stationary, [&](const Access& access) {
      if (access.memory != Memory::Hbm) visit(access);
    });
  }
}

inline Extent extent_of(const Access& access) {
  return strided_extent(access.address, access.bytes, {access.walks[0], access.walks[1], access.walks[2]});
}

inline bool overlap(const Extent& a, const Extent& b) { return a.begin < b.end && b.begin < a.end; }

}  // namespace opennpu::timing
