// When each instruction of one core starts and ends. Starts come in the order of time, so that what shares
// the memory or a bank of the scratchpad is known when an instruction starts.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

#include "banks.h"
#include "isa_gen.h"
#include "meetings.h"
#include "parameters.h"
#include "recorder.h"
#include "report.h"
#include "shared_hbm.h"

namespace opennpu::timing {

// One instruction that takes more than its issue. Those that do not are part of the next one's `issue`.
struct Task {
  enum class Kind : uint8_t { Transfer, Stationary, Product, Vector, SetFlag, WaitFlag, ScalarLoad, Barrier };
  Kind kind;
  uint8_t queue;  // isa::Unit of an engine
  uint8_t flag;
  bool accumulator;  // wait_flag: for accumulators that the vector queue empties
  uint32_t location;
  uint32_t instruction;  // index in the text
  uint32_t issue;        // cycles of the sequencer from the task before up to and with this one
  Meetings::Id meeting = Meetings::kNone;  // of a shared load
  int64_t occupancy, latency, hbm_work;
  BankUse banks;
};

class CoreTimeline {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // `recorder` may be null.
  CoreTimeline(unsigned number, const Parameters& parameters, SharedHbm& hbm, Recorder* recorder);

  // Begins on `tasks`, which end with a barrier (or the halt) and stay until release.
  void begin(const std::vector<Task>& tasks);

  // When the next instruction starts, as far as that does not hang on the end of a transfer.
  int64_t next_start() const { return next_start_; }

  // Starts it. No other core and no end of a transfer may come before it. A shared load waits for
  // start_shared: it is returned.
  const Task* start_next();

  // The shared load that it waits with begins; the caller posts it to the memory.
  void start_shared(int64_t time);

  // A transfer of `queue`. It was posted to the memory as queue + kQueues · number of the core.
  void end_transfer(size_t queue, double time);

  // Once nothing is left to start or end: when the core arrived at the barrier.
  int64_t arrival() const { return arrival_; }

  // Every core goes on at `time`; the times of the queues since the last release are added to `op`.
  void release(int64_t time, OpTimes& op);

  const CoreTimes& times() const { return times_; }

 private:
  static constexpr int64_t kUnknown = -1;
  static constexpr size_t kShadow = kQueues;  // a unit beside those of the queues: the shadow registers

  // A set_flag, and the wait_flag that it meets: the next in program order.
  struct Set {
    int64_t visible = kUnknown;
    uint8_t queue;
    Recorder::Id after = Recorder::kNone;
  };

  struct Pending {
    const Task* task;
    int64_t issued;
    Set* set;  // of a set_flag or wait_flag
  };

  struct PassedFlag {
    Pending flag;
    int64_t left;  // when it left the queue
  };

  struct Queue {
    std::deque<Pending> pending;
    std::vector<PassedFlag> flags;   // that passed a transfer on its way
    std::vector<int64_t> started;    // ring: when each of the last `queue_depth` instructions left the queue
    uint64_t pushed = 0, left = 0;   // how many instructions entered and left
    int64_t front = 0;               // the next one starts no earlier
    int64_t done = 0;                // when all so far have completed
    int64_t cursor = 0;              // the time up to here is accounted for
    bool waits = false;              // its first is a shared load, for other cores
    const Task* transfer = nullptr;  // on its way
    int64_t transfer_start = 0;
    int64_t transfer_least = 0;  // cycles
  };

  // What works on instructions: free from `end` on, kNever during a transfer. It holds its banks up to
  // `holds`; a transfer is taken to move its bytes at full speed, as it was when it started.
  struct Unit {
    int64_t end = 0, holds = 0;
    BankUse banks;
  };

  void settle();
  bool issue();
  bool pass(size_t queue);
  Set* match(const Task& task);
  int64_t start_of(size_t queue) const;
  void start(size_t queue, int64_t time);
  int64_t stretched(const BankUse& use, int64_t start, int64_t cycles) const;
  double most_wanted(const BankUse& use, int64_t time) const;
  void settle_flags(size_t queue);
  void stall(size_t queue, int64_t until, Stall cause);
  void occupy(size_t queue, const Task& task, int64_t start, int64_t end);
  void leave(Queue& queue, int64_t time);

  const unsigned number_;
  const Parameters p_;
  SharedHbm& hbm_;
  Recorder* const recorder_;

  const std::vector<Task>* tasks_ = nullptr;
  size_t next_ = 0;        // task to issue
  int64_t sequencer_ = 0;  // time up to which the sequencer has got
  int64_t arrival_ = 0;
  int64_t next_start_ = kNever;
  size_t next_queue_ = 0;
  std::array<Queue, kQueues> queues_;
  std::array<Unit, kQueues + 1> units_;
  std::deque<Set> sets_;                                 // its elements stay where they are
  std::array<std::deque<Set*>, isa::kFlags> unmatched_;  // sets without a wait so far
  CoreTimes times_, before_;                             // up to now, and up to the last release
};

}  // namespace opennpu::timing
