// The native engine: host kernels for what programs spend their time in. Whatever it has no
// kernel for it gives to the reference engine, so it is complete by construction.
#pragma once

#include <memory>
#include <vector>

#include "engine.h"
#include "kernels.h"
#include "pending.h"
#include "stationary.h"

namespace opennpu::native {

inline constexpr int64_t kChunk = 512;  // floats of an element-wise run: stays in the first-level cache

struct State : EngineState {
  State(const npu_chip_desc& chip, const Kernels& kernels)
      : stationary(chip, kernels.turn), block(kPanelRows * chip.mx_k) {}
  void reset() override {
    stationary.reset();
    pending.reset();
  }
  void before_barrier(const CoreMemory& memory) override { pending.before_barrier(memory.spm); }

  Stationary stationary;
  Pending pending;
  std::vector<float> block;  // rows of x as f32
  std::vector<float> row;    // one row of a reduction or softmax
};

class NativeEngine : public Engine {
 public:
  NativeEngine(const npu_chip_desc& chip, const Kernels& kernels);

  std::unique_ptr<EngineState> make_state(const npu_chip_desc& chip) const override;

#define X(NAME) void execute(Core& core, const isa::NAME& op) const override;
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X

 private:
  // Each returns false when it has no kernel for these operands; nothing has happened then.
  bool gather(Core& core, const isa::DmaGather& op) const;
  bool scatter(Core& core, const isa::DmaScatter& op) const;
  bool unary(Core& core, const isa::VUnary& op) const;
  bool binary(Core& core, const isa::VBinary& op) const;
  bool fill(Core& core, const isa::VFill& op) const;
  bool select(Core& core, const isa::VSelect& op) const;
  bool reduce(Core& core, const isa::VReduce& op) const;
  bool argmax(Core& core, const isa::VReduce& op) const;
  template <typename Put>
  void for_each_row(Core& core, const isa::VReduce& op, const Put& put) const;
  bool softmax(Core& core, const isa::VSoftmaxStep& op) const;

  // n elements of a float dtype, `stride` bytes apart, to and from f32.
  void read(const std::byte* from, int64_t dtype, int64_t stride, int64_t n, float* to) const;
  void write(const float* from, std::byte* to, int64_t dtype, int64_t stride, int64_t n) const;

  const Kernels& kernels_;
  std::unique_ptr<Engine> reference_;
  std::vector<Kernels::Unary> unary_;    // by isa::Unary
  std::vector<Kernels::Binary> binary_;  // by isa::Binary
};

}  // namespace opennpu::native
