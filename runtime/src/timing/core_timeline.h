// When each instruction of one core starts and ends, given the ends of its transfers.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "isa_gen.h"
#include "parameters.h"
#include "report.h"
#include "shared_hbm.h"

namespace opennpu::timing {

// One instruction that takes more than its issue. Those that do not are part of the next one's `issue`.
struct Task {
  enum class Kind : uint8_t { Transfer, Stationary, Product, Vector, SetFlag, WaitFlag, ScalarLoad, Barrier };
  Kind kind;
  uint8_t queue;  // isa::Unit of an engine
  uint8_t flag;
  uint32_t location;
  int64_t issue;  // cycles of the sequencer from the task before up to and with this one
  int64_t occupancy, latency, hbm_work;
};

class CoreTimeline {
 public:
  CoreTimeline(unsigned number, const Parameters& parameters, SharedHbm& hbm, std::vector<OpTimes>& ops);

  // Times all that is known so far of `tasks`, which end with a barrier (or the halt). Call it first, then
  // once after each end of a transfer.
  void advance(const std::vector<Task>& tasks);

  // A transfer, as posted to the memory: `id` is its queue plus kQueues · number of the core.
  void end_transfer(uint32_t id, double time);

  // Between advance and release: when the core arrived at the barrier.
  int64_t arrival() const { return arrival_; }

  // Every core goes on at `time`.
  void release(int64_t time);

  const CoreTimes& times() const { return times_; }

 private:
  static constexpr int64_t kUnknown = -1;

  // A set_flag, and the wait_flag that it meets: the next in program order.
  struct Set {
    int64_t visible = kUnknown;
    uint8_t queue;
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
    int64_t unit = 0;                // when its unit is free; of the matrix queue: the array
    int64_t done = 0;                // when all so far have completed
    int64_t cursor = 0;              // the time up to here is accounted for
    const Task* transfer = nullptr;  // on its way
    int64_t transfer_start = 0;
  };

  bool issue(const std::vector<Task>& tasks);
  Set* match(const Task& task);
  bool run(size_t queue);
  void start(size_t queue, const Pending& next);
  void settle_flags(size_t queue);
  void stall(size_t queue, int64_t until, Stall cause);
  void occupy(size_t queue, const Task& task, int64_t start, int64_t end);
  void leave(Queue& queue, int64_t time);

  const unsigned number_;
  const Parameters p_;
  SharedHbm& hbm_;
  std::vector<OpTimes>& ops_;

  size_t next_ = 0;        // task to issue
  int64_t sequencer_ = 0;  // time up to which the sequencer has got
  int64_t arrival_ = 0;
  std::array<Queue, kQueues> queues_;
  std::deque<Set> sets_;                                 // its elements stay where they are
  std::array<std::deque<Set*>, isa::kFlags> unmatched_;  // sets without a wait so far
  int64_t tile_ready_ = 0;  // when the last stationary tile is in the matrix unit's shadow registers
  CoreTimes times_;
};

}  // namespace opennpu::timing
