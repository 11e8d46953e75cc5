#include "core_timeline.h"

#include <algorithm>
#include <cmath>

namespace opennpu::timing {

namespace {

// Engines are clocked: a transfer ends with the cycle in which its last byte moves.
int64_t whole_cycle(double time) {
  constexpr double kRounding = 1e-4;  // far above the error of the sums, far below a cycle
  return static_cast<int64_t>(std::ceil(time - kRounding));
}

}  // namespace

CoreTimeline::CoreTimeline(unsigned number, const Parameters& parameters, SharedHbm& hbm,
                           std::vector<OpTimes>& ops)
    : number_(number), p_(parameters), hbm_(hbm), ops_(ops) {
  for (Queue& queue : queues_) queue.started.resize(static_cast<size_t>(p_.queue_depth));
}

// A set_flag stands before its wait_flag in program order, so all that can hold a queue up is a transfer
// whose end is not known: going round until nothing moves finds every time that does not depend on one.
void CoreTimeline::advance(const std::vector<Task>& tasks) {
  for (bool moved = true; moved;) {
    moved = issue(tasks);
    for (size_t q = 0; q < kQueues; ++q) moved |= run(q);
  }
}

bool CoreTimeline::issue(const std::vector<Task>& tasks) {
  const size_t first = next_;
  for (; next_ < tasks.size(); ++next_) {
    const Task& task = tasks[next_];
    const auto issue_to = [&](int64_t time) {
      times_.sequencer.issue += task.issue;
      times_.sequencer.queue_full += time - (sequencer_ + task.issue);
      sequencer_ = time;
    };
    if (task.kind == Task::Kind::Barrier) {
      const bool drained = std::all_of(queues_.begin(), queues_.end(), [](const Queue& queue) {
        return queue.pending.empty() && queue.transfer == nullptr;
      });
      if (!drained) break;
      issue_to(sequencer_ + task.issue);
      arrival_ = sequencer_;
      for (const Queue& queue : queues_) arrival_ = std::max({arrival_, queue.done, queue.front});
    } else if (task.kind == Task::Kind::ScalarLoad) {
      issue_to(sequencer_ + task.issue);
      sequencer_ += p_.scalar_load_cycles;
      times_.sequencer.scalar_load += p_.scalar_load_cycles;
    } else {
      Queue& queue = queues_[task.queue];
      const uint64_t depth = queue.started.size();
      if (queue.pushed - queue.left == depth) break;
      const int64_t room = queue.pushed < depth ? 0 : queue.started[queue.pushed % depth];
      issue_to(std::max(sequencer_ + task.issue, room));
      queue.pending.push_back({&task, sequencer_, match(task)});
      ++queue.pushed;
    }
  }
  return next_ != first;
}

CoreTimeline::Set* CoreTimeline::match(const Task& task) {
  std::deque<Set*>& unmatched = unmatched_[task.flag];
  if (task.kind == Task::Kind::SetFlag) {
    sets_.push_back({kUnknown, task.queue});
    unmatched.push_back(&sets_.back());
    return &sets_.back();
  }
  if (task.kind != Task::Kind::WaitFlag) return nullptr;
  Set* set = unmatched.front();
  unmatched.pop_front();
  return set;
}

// Starts what can start; stops at an unknown time. Flags pass a transfer whose end is not known yet: what
// they let the sequencer issue may share the memory with it.
bool CoreTimeline::run(size_t index) {
  Queue& queue = queues_[index];
  bool moved = false;
  for (; !queue.pending.empty(); queue.pending.pop_front(), moved = true) {
    const Pending& next = queue.pending.front();
    const Task::Kind kind = next.task->kind;
    if (kind == Task::Kind::SetFlag || kind == Task::Kind::WaitFlag) {
      const bool wait = kind == Task::Kind::WaitFlag;
      if (wait && next.set->visible == kUnknown) break;
      leave(queue, std::max({next.issued, queue.front, wait ? next.set->visible : 0}));
      queue.flags.push_back({next, queue.front});
      if (queue.transfer == nullptr) settle_flags(index);
    } else {
      if (queue.transfer != nullptr) break;
      start(index, next);
    }
  }
  return moved;
}

// The flags that have left the queue since its unit's last instruction, which has ended.
void CoreTimeline::settle_flags(size_t index) {
  Queue& queue = queues_[index];
  for (const auto& [flag, left] : queue.flags) {
    if (flag.task->kind == Task::Kind::SetFlag) {
      flag.set->visible = std::max(left, queue.done) + p_.flag_cycles;
    } else {
      stall(index, flag.issued, Stall::Issue);
      stall(index, left, static_cast<Stall>(static_cast<size_t>(Stall::Load) + flag.set->queue));
    }
  }
  queue.flags.clear();
}

// A stationary tile goes into shadow registers while the array still works on earlier products. They are
// free then: instructions start in order, so the last product's start has taken the tile over.
void CoreTimeline::start(size_t index, const Pending& next) {
  Queue& queue = queues_[index];
  const Task& task = *next.task;
  int64_t start = std::max(next.issued, queue.front);
  stall(index, start, Stall::Issue);
  if (task.kind == Task::Kind::Stationary) {
    start = std::max(start, tile_ready_);
    tile_ready_ = start + task.occupancy;
    occupy(index, task, start, tile_ready_);
  } else {
    start = std::max(start, queue.unit);
    if (task.kind == Task::Kind::Product) start = std::max(start, tile_ready_);
    if (task.kind == Task::Kind::Transfer && task.hbm_work != 0) {
      hbm_.post(start, task.hbm_work, static_cast<uint32_t>(kQueues * number_ + index));
      queue.transfer = &task;
      queue.transfer_start = start;
    } else {
      occupy(index, task, start, start + task.occupancy);
      queue.unit = start + task.occupancy;
    }
  }
  leave(queue, start);
}

void CoreTimeline::end_transfer(uint32_t id, double time) {
  const size_t index = id % kQueues;
  Queue& queue = queues_[index];
  const Task& task = *queue.transfer;
  const int64_t start = queue.transfer_start;
  const int64_t end = std::max(whole_cycle(time), start + task.occupancy);
  const int64_t alone = std::max(whole_cycle(hbm_.alone(task.hbm_work)), task.occupancy);
  times_.queues[index].hbm_contention += end - start - alone;
  occupy(index, task, start, end);
  queue.unit = end;
  queue.transfer = nullptr;
  settle_flags(index);
}

// The queue's unit works on `task`; the next instructions may start before it has completed.
void CoreTimeline::occupy(size_t index, const Task& task, int64_t start, int64_t end) {
  Queue& queue = queues_[index];
  QueueTimes& times = times_.queues[index];
  stall(index, start, Stall::Unit);
  times.busy += std::max<int64_t>(end - queue.cursor, 0);
  queue.cursor = std::max(queue.cursor, end);
  queue.done = std::max(queue.done, end + task.latency);
  ops_[task.location].busy[index] += end - start;
}

void CoreTimeline::stall(size_t index, int64_t until, Stall cause) {
  Queue& queue = queues_[index];
  if (until <= queue.cursor) return;
  times_.queues[index].stalls[static_cast<size_t>(cause)] += until - queue.cursor;
  queue.cursor = until;
}

void CoreTimeline::leave(Queue& queue, int64_t time) {
  queue.front = time;
  queue.started[queue.left++ % queue.started.size()] = time;
}

void CoreTimeline::release(int64_t time) {
  times_.sequencer.barrier += time - sequencer_;
  sequencer_ = time;
  next_ = 0;
  const auto none = [](const std::deque<Set*>& sets) { return sets.empty(); };
  if (std::all_of(unmatched_.begin(), unmatched_.end(), none)) sets_.clear();
  for (size_t q = 0; q < kQueues; ++q) stall(q, time, Stall::Barrier);
}

}  // namespace opennpu::timing
