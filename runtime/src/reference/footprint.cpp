#include "footprint.h"

#include <string>

#include "element.h"

namespace opennpu {

namespace {

using isa::Dtype;
using isa::Layout;
using isa::Tile;
using reference::element;
using reference::for_each_element;
using reference::is_integer;
using reference::load_integer;
using reference::packed_pair;

Access tile(const char* operand, bool write, const Tile& t, int64_t d0, int64_t d1, int64_t d2) {
  const int64_t size = dtype_size(t.dtype);
  const Memory memory = t.space == static_cast<int64_t>(isa::Space::Spm) ? Memory::Spm : Memory::Acc;
  return {operand, memory, write, t.addr, size, {{{d0, t.s0}, {d1, t.s1}, {d2, t.s2}}}, size};
}

Access f32_vector(const char* operand, bool write, int64_t address, int64_t count) {
  return {operand, Memory::Spm, write, address, 4, {{{1, 0}, {1, 0}, {count, 4}}}, 4};
}

void require(bool holds, const std::string& otherwise) {
  if (!holds) throw Trap{otherwise};
}

void require_integer(const char* operand, const Tile& t) {
  require(is_integer(t.dtype),
          std::string("operand ") + operand + " must be of integers, not " + isa::kDtypeNames[t.dtype]);
}

/// dma_gather and dma_scatter: the list, then for each index the rows in HBM and those in scratchpad.
template <class Op>
void visit_indexed(const Core& core, const Op& op, int64_t table, bool gather, int64_t local,
                   int64_t local_index, int64_t local_row, const Visit& visit) {
  require(op.group >= 1, "group is " + std::to_string(op.group) + "; it must be at least 1");
  const int64_t index_bytes = dtype_size(op.index_dtype);
  visit({"index", Memory::Hbm, false, op.index, index_bytes, {{{1, 0}, {1, 0}, {op.count, index_bytes}}}});
  for (int64_t i = 0; i < op.count; ++i) {
    const int64_t address = indexed_address(core, op, table, i);
    visit({gather ? "src" : "dst",
           Memory::Hbm,
           !gather,
           address,
           op.row_bytes,
           {{{1, 0}, {1, 0}, {op.rows, op.row_stride}}}});
  }
  visit({gather ? "dst" : "src",
         Memory::Spm,
         gather,
         local,
         op.row_bytes,
         {{{1, 0}, {op.count, local_index}, {op.rows, local_row}}}});
}

std::string describe(Memory memory, const Core& core) {
  const bool spm = memory == Memory::Spm;
  return (spm ? "a scratchpad of " : "an accumulator of ") +
         std::to_string(spm ? core.memory.spm_bytes : core.memory.acc_bytes) + " bytes";
}

}  // namespace

void visit_accesses(const Core&, const isa::DmaLoad& op, const Stationary&, const Visit& visit) {
  visit({"src", Memory::Hbm, false, op.src, op.bytes, {{{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}}}});
  visit({"dst", Memory::Spm, true, op.dst, op.bytes, {{{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}}}});
}

void visit_accesses(const Core&, const isa::DmaStore& op, const Stationary&, const Visit& visit) {
  visit({"src", Memory::Spm, false, op.src, op.bytes, {{{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}}}});
  visit({"dst", Memory::Hbm, true, op.dst, op.bytes, {{{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}}}});
}

void visit_accesses(const Core& core, const isa::DmaGather& op, const Stationary&, const Visit& visit) {
  visit_indexed(core, op, op.src, true, op.dst, op.dst_index_stride, op.dst_row_stride, visit);
}

void visit_accesses(const Core& core, const isa::DmaScatter& op, const Stationary&, const Visit& visit) {
  visit_indexed(core, op, op.dst, false, op.src, op.src_index_stride, op.src_row_stride, visit);
}

void visit_accesses(const Core& core, const isa::MxLoad& op, const Stationary&, const Visit& visit) {
  const npu_chip_desc& chip = core.chip;
  require(op.k >= 0 && op.k <= chip.mx_k && op.n >= 0 && op.n <= chip.mx_n,
          "a tile of " + std::to_string(op.k) + " x " + std::to_string(op.n) + "; the matrix unit holds " +
              std::to_string(chip.mx_k) + " x " + std::to_string(chip.mx_n));
  const int64_t size = dtype_size(op.dtype);
  const auto rows = [&](int64_t count, int64_t elements) {
    const int64_t bytes = count > 0 ? elements * size : 0;
    visit({"src", Memory::Spm, false, op.src, bytes, {{{1, 0}, {1, 0}, {count, op.stride}}}, size});
  };
  switch (static_cast<Layout>(op.layout)) {
    case Layout::Kn:
      return rows(op.k, op.n);
    case Layout::Nk:
      return rows(op.n, op.k);
    case Layout::Packed: {
      const int64_t pair = packed_pair(chip, op.dtype);
      return rows((op.n + chip.strip - 1) / chip.strip, (op.k + pair - 1) / pair * pair * chip.strip);
    }
  }
}

void visit_accesses(const Core&, const isa::MxMul& op, const Stationary& w, const Visit& visit) {
  const int64_t size = dtype_size(w.dtype);
  const int64_t rows = w.n > 0 ? op.rows : 0;
  visit({"src", Memory::Spm, false, op.src, w.k * size, {{{1, 0}, {1, 0}, {rows, op.src_stride}}}, size});
  Access acc{"dst", Memory::Acc, false, op.dst, w.n * 4, {{{1, 0}, {1, 0}, {rows, op.dst_stride}}}, 4};
  if (op.accumulate != 0) visit(acc);
  acc.write = true;
  visit(acc);
}

void visit_accesses(const Core&, const isa::VFill& op, const Stationary&, const Visit& visit) {
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::VIota& op, const Stationary&, const Visit& visit) {
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::VUnary& op, const Stationary&, const Visit& visit) {
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2));
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::VBinary& op, const Stationary&, const Visit& visit) {
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2));
  visit(tile("b", false, op.b, op.d0, op.d1, op.d2));
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::VSelect& op, const Stationary&, const Visit& visit) {
  visit(tile("cond", false, op.cond, op.d0, op.d1, op.d2));
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2));
  visit(tile("b", false, op.b, op.d0, op.d1, op.d2));
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::VReduce& op, const Stationary&, const Visit& visit) {
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2));
  visit(tile("dst", true, op.dst, op.d0, op.d1, 1));
}

void visit_accesses(const Core&, const isa::VSoftmaxStep& op, const Stationary&, const Visit& visit) {
  require(op.s.dtype == static_cast<int64_t>(Dtype::F32),
          std::string("operand s must be f32, not ") + isa::kDtypeNames[op.s.dtype]);
  require(op.group >= 1, "group is " + std::to_string(op.group) + "; it must be at least 1");
  visit(tile("s", false, op.s, 1, op.rows, op.n));
  visit(f32_vector("m", false, op.m, op.rows));
  visit(f32_vector("l", false, op.l, op.rows));
  visit(tile("p", true, op.p, 1, op.rows, op.n));
  visit(f32_vector("m", true, op.m, op.rows));
  visit(f32_vector("l", true, op.l, op.rows));
  visit(f32_vector("alpha", true, op.alpha, op.rows));
}

void visit_accesses(const Core&, const isa::VTranspose& op, const Stationary&, const Visit& visit) {
  require(op.dst.dtype == op.a.dtype, std::string("dst is ") + isa::kDtypeNames[op.dst.dtype] + " and a is " +
                                          isa::kDtypeNames[op.a.dtype] + "; v_transpose does not cast");
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2));
  visit(tile("dst", true, op.dst, op.d0, op.d2, op.d1));
}

void visit_accesses(const Core& core, const isa::VGather& op, const Stationary&, const Visit& visit) {
  require_integer("index", op.index);
  visit(tile("index", false, op.index, op.d0, op.d1, op.d2));
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    const int64_t index = load_integer(op.index.dtype, element(core, op.index, i0, i1, i2));
    require(index >= 0 && index < op.limit, "index " + std::to_string(index) + " is outside 0 to " +
                                                std::to_string(op.limit) + " (limit), which is not included");
  });
  visit(tile("a", false, op.a, op.d0, op.d1, op.d2 > 0 ? op.limit : 0));
  visit(tile("dst", true, op.dst, op.d0, op.d1, op.d2));
}

void visit_accesses(const Core&, const isa::SLd& op, const Stationary&, const Visit& visit) {
  visit({"addr", Memory::Hbm, false, op.addr, dtype_size(op.dtype)});
}

void check_access(const Core& core, const Access& access) {
  if (access.empty()) return;
  const std::string operand = std::string("operand ") + access.operand;
  int64_t misaligned = access.address % access.alignment;
  for (const Walk& walk : access.walks) misaligned |= walk.stride % access.alignment;
  for (const Walk& walk : access.walks) {
    require(!access.write || walk.count <= 1 || walk.stride != 0,
            operand + " is written with a stride of 0 under a count of " + std::to_string(walk.count));
  }
  require(misaligned == 0, operand + ": its address and strides must be multiples of its element size, " +
                               std::to_string(access.alignment));
  try {
    const auto& w = access.walks;
    const Extent extent = strided_extent(access.address, access.bytes, {w[0], w[1], w[2]});
    if (access.memory == Memory::Hbm) {
      core.hbm.translate(extent.begin, extent.end - extent.begin, access.write);
      return;
    }
    const int64_t size = access.memory == Memory::Spm ? core.memory.spm_bytes : core.memory.acc_bytes;
    require(extent.end <= size,
            "reaches byte " + std::to_string(extent.end) + " of " + describe(access.memory, core));
  } catch (const Trap& trap) {
    throw Trap{operand + ": " + trap.message};
  }
}

template <class Op>
int64_t indexed_address(const Core& core, const Op& op, int64_t table, int64_t i) {
  const int64_t bytes = dtype_size(op.index_dtype);
  const int64_t x = load_integer(op.index_dtype, core.hbm.translate(op.index + i * bytes, bytes, false));
  require(x >= 0 && x < op.limit, "index " + std::to_string(i) + " of the list is " + std::to_string(x) +
                                      ", outside 0 to " + std::to_string(op.limit) +
                                      " (limit), not included");
  int64_t group = 0, within = 0, address = 0;
  const bool overflows = __builtin_mul_overflow(x / op.group, op.group_stride, &group) ||
                         __builtin_mul_overflow(x % op.group, op.index_stride, &within) ||
                         __builtin_add_overflow(group, within, &address) ||
                         __builtin_add_overflow(address, table, &address);
  require(!overflows, "the address of index " + std::to_string(x) + " is outside the address space");
  return address;
}

template int64_t indexed_address(const Core&, const isa::DmaGather&, int64_t, int64_t);
template int64_t indexed_address(const Core&, const isa::DmaScatter&, int64_t, int64_t);

}  // namespace opennpu
