// One core's sequencer: scalar instructions, loops, flags; hands the rest to the engine.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "engine.h"
#include "error.h"
#include "opennpu/npu.h"
#include "program.h"
#include "shared_loads.h"

namespace opennpu {

// What all cores of a launch share.
struct Launch {
  const Program& program;
  std::span<const int64_t> args;            // values and buffer addresses
  Observer* observer;                       // may be null
  uint64_t max_instructions;                // of one core
  std::chrono::milliseconds time_limit{0};  // of the launch; 0: none
};

class Sequencer {
 public:
  enum class State { Running, AtBarrier, Halted };

  Sequencer(const npu_chip_desc& chip, const Engine& engine, const Hbm& hbm, CoreMemory memory,
            unsigned number);

  // Starts a launch, which stays until the next begin. Nothing is allocated unless loops nest deeper or more
  // loads are shared than before.
  void begin(const Launch& launch);

  // Runs `slice` instructions, or to the next barrier or halt. Throws Error (TRAP or TIMEOUT).
  State run(uint64_t slice);

  unsigned number() const { return core_.number; }
  const npu_counters& counters() const { return core_.counters; }
  Site site() const;  // of the next instruction

  // Since the last barrier, which forgets them.
  const std::vector<SharedLoad>& shared_loads() const { return shared_loads_; }
  void forget_shared_loads() { shared_loads_.clear(); }

  // A failure at the next instruction, with its name and that of its source op.
  Error failure(npu_status status, const std::string& what) const;

 private:
  struct OpenLoop {
    int64_t value, hi, step;
  };

  State run_slice(uint64_t slice);
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
  void check(const I&) {}
  void check(const isa::DmaLoad& op);
  template <typename I>
  void count(const I&) {}
  void count(const isa::DmaLoad& op);
  void count(const isa::DmaStore& op);
  void count(const isa::DmaGather& op);
  void count(const isa::DmaScatter& op);
  void count(const isa::MxLoad& op);
  void count(const isa::MxMul& op);

  const Engine& engine_;
  Core core_;
  const Launch* launch_ = nullptr;
  std::array<int64_t, isa::kRegisters> registers_{};
  std::array<int64_t, isa::kFlags> flags_{};
  std::vector<OpenLoop> loops_;
  std::vector<SharedLoad> shared_loads_;
  size_t pc_ = 0;
  uint64_t stationary_ = 0;  // elements of the matrix unit's tile, for the counters
};

}  // namespace opennpu
