#include "native_engine.h"

#include <cstring>
#include <string>

#include "bounds.h"

namespace opennpu {

std::unique_ptr<Engine> make_native_engine(const npu_chip_desc& chip) {
  return std::make_unique<native::NativeEngine>(chip, native::select_kernels());
}

namespace native {
namespace {

State& state_of(Core& core) { return static_cast<State&>(*core.state); }

// Where an instruction writes in scratchpad; empty for one that does not.
Extent written(const isa::DmaLoad& op) {
  return strided_extent(op.dst, op.bytes, {{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}});
}
Extent written(const isa::DmaGather& op) {
  return strided_extent(op.dst, op.row_bytes,
                        {{op.count, op.dst_index_stride}, {op.rows, op.dst_row_stride}});
}
Extent written(const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2) {
  return isa::Space(tile.space) == isa::Space::Spm ? tile_extent(tile, d0, d1, d2) : Extent{};
}
template <typename Op>
Extent written(const Op& op) {
  return written(op.dst, op.d0, op.d1, op.d2);
}
Extent written(const isa::VReduce& op) { return written(op.dst, op.d0, op.d1, 1); }
Extent written(const isa::VTranspose& op) { return written(op.dst, op.d0, op.d2, op.d1); }

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
  return std::make_unique<State>(chip);
}

// ---------------------------------------------------------------- load and store queues

void NativeEngine::execute(Core& core, const isa::DmaLoad& op) const {
  const Extent to = written(op);
  std::byte* spm = check_memory(core, isa::Space::Spm, to);
  if (to.empty()) return;
  state_of(core).stationary.before_write(to);
  const Extent from = strided_extent(op.src, op.bytes, {{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}});
  const std::byte* hull = core.hbm.find(from.begin, from.end - from.begin, false);
  if (hull)
    copy(op, spm + op.dst, hull + (op.src - from.begin));
  else
    reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::DmaStore& op) const {
  const Extent from = strided_extent(op.src, op.bytes, {{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}});
  const std::byte* spm = check_memory(core, isa::Space::Spm, from);
  if (from.empty()) return;
  const Extent to = strided_extent(op.dst, op.bytes, {{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}});
  std::byte* hull = core.hbm.find(to.begin, to.end - to.begin, true);
  if (hull)
    copy(op, hull + (op.dst - to.begin), spm + op.src);
  else
    reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::DmaGather& op) const {
  state_of(core).stationary.before_write(written(op));
  reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::DmaScatter& op) const { reference_->execute(core, op); }

// ---------------------------------------------------------------- matrix queue

void NativeEngine::execute(Core& core, const isa::MxLoad& op) const {
  state_of(core).stationary.load(core, op);
}

void NativeEngine::execute(Core& core, const isa::MxMul& op) const {
  State& state = state_of(core);
  const Stationary& w = state.stationary;
  const Extent x = strided_extent(op.src, w.k() * dtype_size(int64_t(w.dtype())), {{op.rows, op.src_stride}});
  const Extent acc = strided_extent(op.dst, w.n() * 4, {{op.rows, op.dst_stride}});
  const std::byte* spm = check_memory(core, isa::Space::Spm, x);
  std::byte* accumulator = check_memory(core, isa::Space::Acc, acc);
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

// ---------------------------------------------------------------- vector queue

void NativeEngine::execute(Core& core, const isa::VUnary& op) const {
  state_of(core).stationary.before_write(written(op));
  if (!unary(core, op)) reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::VBinary& op) const {
  state_of(core).stationary.before_write(written(op));
  if (!binary(core, op)) reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::VFill& op) const {
  state_of(core).stationary.before_write(written(op));
  if (!fill(core, op)) reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::VSelect& op) const {
  state_of(core).stationary.before_write(written(op));
  if (!select(core, op)) reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::VReduce& op) const {
  state_of(core).stationary.before_write(written(op));
  if (!reduce(core, op)) reference_->execute(core, op);
}

void NativeEngine::execute(Core& core, const isa::VSoftmaxStep& op) const {
  Stationary& stationary = state_of(core).stationary;
  stationary.before_write(written(op.p, 1, op.rows, op.n));
  for (int64_t vector : {op.m, op.l, op.alpha})
    stationary.before_write(strided_extent(vector, 4, {{op.rows, 4}}));
  if (!softmax(core, op)) reference_->execute(core, op);
}

#define BY_REFERENCE(NAME)                                            \
  void NativeEngine::execute(Core& core, const isa::NAME& op) const { \
    state_of(core).stationary.before_write(written(op));              \
    reference_->execute(core, op);                                    \
  }
BY_REFERENCE(VIota)
BY_REFERENCE(VTranspose)
BY_REFERENCE(VGather)
#undef BY_REFERENCE

}  // namespace native
}  // namespace opennpu
