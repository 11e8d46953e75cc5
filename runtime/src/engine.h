// What the sequencer and an engine know of each other: a core's memories, the HBM window of a
// launch, and one `execute` per instruction of the load, store, matrix and vector queues.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "isa_gen.h"
#include "opennpu/npu.h"

namespace opennpu {

// The program did something that the instruction set forbids. Thrown inside the library only;
// the sequencer adds the instruction and its source op.
struct Trap {
  std::string message;
};

// Scratchpad and accumulator of one core. Both start at a multiple of 64 bytes.
struct CoreMemory {
  std::byte* spm;
  size_t spm_bytes;
  std::byte* acc;
  size_t acc_bytes;
};

// The parts of HBM that one launch may touch: its argument buffers. Addresses are the chip's,
// not the host's.
class Hbm {
 public:
  struct Range {
    uint64_t address, bytes;
    bool writable;
  };

  // `base` is the host address of chip address 0.
  explicit Hbm(std::byte* base, std::span<const Range> ranges = {}) : base_(base) { assign(ranges); }

  // The buffers of the launch that follows; they may overlap or repeat.
  void assign(std::span<const Range> ranges);

  // The host address of `bytes` bytes at `address`, all of which lie in one buffer; else throws Trap.
  std::byte* translate(uint64_t address, uint64_t bytes, bool write) const;

  // The same without a trap: nullptr when the bytes do not lie in one buffer.
  std::byte* find(uint64_t address, uint64_t bytes, bool write) const;

  // The same for bytes of which this launch can write none; nullptr when it can.
  const std::byte* find_constant(uint64_t address, uint64_t bytes) const;

 private:
  struct Span {
    uint64_t begin, end;
  };
  static void merge(std::vector<Span>& spans);

  std::byte* base_;
  std::vector<Span> readable_, writable_;  // sorted and disjoint
};

// What an engine keeps per core between instructions, e.g. the stationary tile.
class EngineState {
 public:
  virtual ~EngineState() = default;
  virtual void reset() = 0;  // as at the start of a launch
  virtual void before_barrier(const CoreMemory& memory) { static_cast<void>(memory); }
};

// One core during a launch. An engine is called for one core by one thread at a time.
struct Core {
  unsigned number;
  const npu_chip_desc& chip;
  CoreMemory memory;
  const Hbm& hbm;
  std::unique_ptr<EngineState> state;  // made by Engine::make_state; may be null
  npu_counters counters{};             // of this core in this launch so far
};

// Executes the instructions of the engine queues, in program order. Operands are resolved but
// not checked: every address, count and stride may be anything, and what lies outside the
// memories must throw Trap before it is touched (bounds.h). Enumerated fields are valid.
// An engine holds no mutable state of its own: several cores run at the same time.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual std::unique_ptr<EngineState> make_state(const npu_chip_desc& chip) const = 0;

#define X(NAME) virtual void execute(Core& core, const isa::NAME& op) const = 0;
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X
};

std::unique_ptr<Engine> make_reference_engine(const npu_chip_desc& chip);
std::unique_ptr<Engine> make_native_engine(const npu_chip_desc& chip);

// Where an instruction stands: its index in the text and the source op it came from.
struct Site {
  uint32_t instruction;
  uint32_t location;  // index into the image's locations
};

#define ONPU_OBSERVED_INSTRUCTIONS(X) \
  ONPU_ENGINE_INSTRUCTIONS(X) X(SLd) X(SetFlag) X(WaitFlag) X(Barrier) X(Halt)

// Sees every instruction before it is executed. The calls for one core come in program order;
// those for different cores may come from different threads at the same time.
class Observer {
 public:
  virtual ~Observer() = default;

  virtual void begin(unsigned cores) = 0;

#define X(NAME) virtual void before(const Core& core, const Site& site, const isa::NAME& op) = 0;
  ONPU_OBSERVED_INSTRUCTIONS(X)
#undef X

  // Every core has arrived at a barrier (or at its halt) and none has left it. One call a barrier.
  virtual void barrier_complete() = 0;

  // After the launch: what was found, for the user; empty when nothing was.
  virtual std::string finish() = 0;
};

// Names an instruction for a message: `12 v_binary (model.layers.0 at model.py:3)`.
using DescribeSite = std::function<std::string(const Site&)>;

std::unique_ptr<Observer> make_race_checker(const npu_chip_desc& chip, DescribeSite describe);

}  // namespace opennpu
