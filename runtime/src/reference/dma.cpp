// dma_load, dma_store, dma_gather, dma_scatter: copies between HBM and scratchpad.
#include <cstring>

#include "instructions.h"

namespace opennpu::reference {

namespace {

/// `copy(source, destination)` for every run of bytes of a strided copy.
template <class Op, class Copy>
void for_each_run(const Op& op, Copy&& copy) {
  if (op.bytes <= 0 || op.n1 <= 0 || op.n2 <= 0) return;  // n0 may be anything then
  for (int64_t i0 = 0; i0 < op.n0; ++i0)
    for (int64_t i1 = 0; i1 < op.n1; ++i1)
      for (int64_t i2 = 0; i2 < op.n2; ++i2)
        copy(op.src + i0 * op.ss0 + i1 * op.ss1 + i2 * op.ss2,
             op.dst + i0 * op.ds0 + i1 * op.ds1 + i2 * op.ds2);
}

/// `copy(hbm, i, r)` for every row of an indirect copy; `table` is its HBM operand.
template <class Op, class Copy>
void for_each_indexed_row(const Core& core, const Op& op, int64_t table, Copy&& copy) {
  if (op.row_bytes <= 0) return;
  for (int64_t i = 0; i < op.count; ++i) {
    const int64_t address = indexed_address(core, op, table, i);
    for (int64_t r = 0; r < op.rows; ++r) copy(address + r * op.row_stride, i, r);
  }
}

}  // namespace

void run(Core& core, const isa::DmaLoad& op) {
  for_each_run(op, [&](int64_t src, int64_t dst) {
    std::memcpy(core.memory.spm + dst, core.hbm.translate(src, op.bytes, false), op.bytes);
  });
}

void run(Core& core, const isa::DmaStore& op) {
  for_each_run(op, [&](int64_t src, int64_t dst) {
    std::memcpy(core.hbm.translate(dst, op.bytes, true), core.memory.spm + src, op.bytes);
  });
}

void run(Core& core, const isa::DmaGather& op) {
  for_each_indexed_row(core, op, op.src, [&](int64_t address, int64_t i, int64_t r) {
    std::memcpy(core.memory.spm + op.dst + i * op.dst_index_stride + r * op.dst_row_stride,
                core.hbm.translate(address, op.row_bytes, false), op.row_bytes);
  });
}

void run(Core& core, const isa::DmaScatter& op) {
  for_each_indexed_row(core, op, op.dst, [&](int64_t address, int64_t i, int64_t r) {
    std::memcpy(core.hbm.translate(address, op.row_bytes, true),
                core.memory.spm + op.src + i * op.src_index_stride + r * op.src_row_stride, op.row_bytes);
  });
}

}  // namespace opennpu::reference
