// One core's sequencer: scalar instructions, loops, flags; hands the rest to the engine.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine.h"
#include "error.h"
#include "opennpu/npu.h"
#include "program.h"

namespace opennpu {

// What all cores of a launch share.
struct LaunchContext {
  const Program& program;
  const npu_chip_desc& chip;
  std::span<const int64_t> args;  // values and buffer addresses
  const Hbm& hbm;
  const Engine& engine;
  Observer* observer;  // may be null
  uint64_t max_instructions;
};

class Sequencer {
 public:
  enum class State { Running, AtBarrier, Halted };

  Sequencer(const LaunchContext& launch, unsigned number, CoreMemory memory);

  // Runs to the next barrier or to halt. Throws Error (TRAP or TIMEOUT).
  State run();

  const npu_counters& counters() const { return core_.counters; }
  Site site() const;  // of the next instruction

 private:
  struct OpenLoop {
    int64_t value, hi, step;
  };

  State step(const Decoded& decoded);
  template <typename I>
  I resolve(const Decoded& decoded) const;
  template <typename I>
  void issue(const Decoded& decoded);

  void scalar(const isa::SMov& op);
  void scalar(const isa::SAlu& op);
  void scalar(const isa::SLd& op);
  void scalar(const isa::SArg& op);
  void begin_loop(const isa::Loop& op, const Decoded& decoded);
  void end_loop(const Decoded& decoded);
  void set_flag(const isa::SetFlag& op);
  void wait_flag(const isa::WaitFlag& op);
  void halt();

  template <typename I>
  void count(const I&) {}
  void count(const isa::DmaLoad& op);
  void count(const isa::DmaStore& op);
  void count(const isa::DmaGather& op);
  void count(const isa::DmaScatter& op);
  void count(const isa::MxLoad& op);
  void count(const isa::MxMul& op);

  LaunchContext launch_;
  Core core_;
  std::array<int64_t, isa::kRegisters> registers_{};
  std::array<int64_t, isa::kFlags> flags_{};
  std::vector<OpenLoop> loops_;
  size_t pc_ = 0;
  uint64_t stationary_ = 0;  // elements of the matrix unit's tile, for the counters
};

}  // namespace opennpu
