#include "native_engine.h"

#include <cstring>
#include <string>

#include "bounds.h"
#include "scratchpad.h"

namespace opennpu {

std::unique_ptr<Engine> make_native_engine(const npu_chip_desc& chip) {
  return std::make_unique<native::NativeEngine>(chip, native::select_kernels());
}

namespace native {
namespace {

State& state_of(Core& core) { return static_cast<State&>(*core.state); }

// To be called before any instruction but the matrix unit's: what it reads is copied, what it overwrites
// is forgotten or, if it is stationary, captured.
template <typename Op>
void touch(Core& core, const Op& op) {
  State& state = state_of(core);
  if (!state.pending.empty())
    visit_reads(op, [&](const Extent& extent) { state.pending.before_read(extent, core.memory.spm); });
  visit_writes(op, [&](const Written& to) {
    state.stationary.before_write(to.extent);
    state.pending.before_write(to.extent, to.whole, core.memory.spm);
  });
}

// A strided copy whose operands have been checked.
template <typename Op>
void copy(const Op& op, std::byte* dst, const std::byte* src) {
  for (int64_t i0 = 0; i0 < op.n0; ++i0)
    for (int64_t i1 = 0; i1 < op.n1; ++i1) {
      std::byte* to = dst + i0 * op.ds0 + i1 * op.ds1;
      const std::byte* from = src + i0 * op.ss0 + i1 * op.ss1;
      for (int64_t i2 = 0; i2 < op.n2; ++i2) std::memcpy(to + i2 * op.ds2, from + i2 * op.ss2, op.bytes);
    }
}

}  // namespace

NativeEngine::NativeEngine(const npu_chip_desc& chip, const Kernels& kernels)
    : kernels_(kernels), reference_(make_reference_engine(chip)) {
  for (const char* op : isa::kUnaryNames) unary_.push_back(kernels.unary(op));
  for (const char* op : isa::kBinaryNames) binary_.push_back(kernels.binary(op));
}

std::unique_ptr<EngineState> NativeEngine::make_state(const npu_chip_desc& chip) const {
  return std::make_unique<State>(chip, kernels_);
}

// ---------------------------------------------------------------- load and store queues

void NativeEngine::execute(Core& core, const isa::DmaLoad& op) const {
  const Extent to = written(op).extent;
  std::byte* spm = check_memory(core, isa::Space::Spm, to);
  if (to.empty()) return;
  touch(core, op);
  const Extent from = strided_extent(op.src, op.bytes, {{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}});
  const bool dense = op.n0 == 1 && op.n1 == 1 && op.n2 == 1;
  if (const std::byte* constant = dense ? core.hbm.find_constant(from.begin, op.bytes) : nullptr)
    state_of(core).pending.add(to, constant, spm);
  else if (const std::byte* hull = core.hbm.find(from.begin, from.end - from.begin, false))
    copy(op, spm + op.dst, hull + (op.src - from.begin));
  else
    reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::DmaStore& op) const {
  const Extent from = stored(op);
  const std::byte* spm = check_memory(core, isa::Space::Spm, from);
  if (from.empty()) return;
  touch(core, op);
  const Extent to = strided_extent(op.dst, op.bytes, {{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}});
  Pending& pending = state_of(core).pending;
  if (std::byte* hull = core.hbm.find(to.begin, to.end - to.begin, true)) {
    pending.before_store(hull, hull + (to.end - to.begin), core.memory.spm);
    copy(op, hull + (op.dst - to.begin), spm + op.src);
  } else {
    pending.before_barrier(core.memory.spm);
    reference_->execute(core, op);
  }
}

void NativeEngine::execute(Core& core, const isa::DmaScatter& op) const {
  touch(core, op);
  state_of(core).pending.before_barrier(core.memory.spm);  // it may store anywhere
  if (!scatter(core, op)) reference_->execute(core, op);
}

// ---------------------------------------------------------------- matrix queue

void NativeEngine::execute(Core& core, const isa::MxLoad& op) const {
  State& state = state_of(core);
  state.stationary.load(core, op, state.pending);
}

void NativeEngine::execute(Core& core, const isa::MxMul& op) const {
  State& state = state_of(core);
  const Stationary& w = state.stationary;
  const Extent x = strided_extent(op.src, w.k() * dtype_size(int64_t(w.dtype())), {{op.rows, op.src_stride}});
  const Extent acc = strided_extent(op.dst, w.n() * 4, {{op.rows, op.dst_stride}});
  const std::byte* spm = check_memory(core, isa::Space::Spm, x);
  std::byte* accumulator = check_memory(core, isa::Space::Acc, acc);
  state.pending.before_read(x, core.memory.spm);
  if (!x.empty()) check_aligned(op.src | op.src_stride, int64_t(w.dtype()));
  if (acc.empty()) return;
  check_aligned(op.dst | op.dst_stride, int64_t(isa::Dtype::F32));
  const Multiply call{w.strips(),
                      w.strip_stride(),
                      w.k(),
                      w.n(),
                      x.empty() ? spm : spm + op.src,  // with k = 0 they may be anything
                      x.empty() ? 0 : op.src_stride,
                      op.rows,
                      accumulator + op.dst,
                      op.dst_stride,
                      op.accumulate != 0,
                      state.block.data()};
  (w.dtype() == isa::Dtype::Bf16 ? kernels_.multiply_bf16 : kernels_.multiply_f32)(call);
}

// ---------------------------------------------------------------- where there are kernels

#define WITH_KERNEL(NAME, KERNEL)                                     \
  void NativeEngine::execute(Core& core, const isa::NAME& op) const { \
    touch(core, op);                                                  \
    if (!KERNEL(core, op)) reference_->execute(core, op);             \
  }
WITH_KERNEL(DmaGather, gather)
WITH_KERNEL(VUnary, unary)
WITH_KERNEL(VBinary, binary)
WITH_KERNEL(VFill, fill)
WITH_KERNEL(VSelect, select)
WITH_KERNEL(VReduce, reduce)
WITH_KERNEL(VSoftmaxStep, softmax)
#undef WITH_KERNEL

// ---------------------------------------------------------------- all others

#define BY_REFERENCE(NAME)                                            \
  void NativeEngine::execute(Core& core, const isa::NAME& op) const { \
    touch(core, op);                                                  \
    reference_->execute(core, op);                                    \
  }
BY_REFERENCE(VIota)
BY_REFERENCE(VTranspose)
BY_REFERENCE(VGather)
#undef BY_REFERENCE

}  // namespace native
}  // namespace opennpu
