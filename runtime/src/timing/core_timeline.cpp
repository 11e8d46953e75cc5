#include "core_timeline.h"

#include <algorithm>
#include <cmath>

namespace opennpu::timing {

namespace {

constexpr double kRounding = 1e-4;  // far above the error of the sums, far below a cycle

// Engines are clocked: a transfer ends with the cycle in which its last byte moves.
int64_t whole_cycle(double time) { return static_cast<int64_t>(std::ceil(time - kRounding)); }

void add(QueueTimes& to, const QueueTimes& now, const QueueTimes& before) {
  to.busy += now.busy - before.busy;
  to.hbm_contention += now.hbm_contention - before.hbm_contention;
  to.bank_conflicts += now.bank_conflicts - before.bank_conflicts;
  for (size_t i = 0; i < kStalls; ++i) to.stalls[i] += now.stalls[i] - before.stalls[i];
}

}  // namespace

CoreTimeline::CoreTimeline(unsigned number, const Parameters& parameters, SharedHbm& hbm, Recorder* recorder)
    : number_(number), p_(parameters), hbm_(hbm), recorder_(recorder) {
  for (Queue& queue : queues_) queue.started.resize(static_cast<size_t>(p_.queue_depth));
}

void CoreTimeline::begin(const std::vector<Task>& tasks) {
  tasks_ = &tasks;
  next_ = 0;
  settle();
}

const Task* CoreTimeline::start_next() {
  Queue& queue = queues_[next_queue_];
  const Task* shared = queue.pending.front().task;
  if (shared->meeting == Meetings::kNone) {
    shared = nullptr;
    start(next_queue_, next_start_);
  } else {
    stall(next_queue_, std::max(queue.pending.front().issued, queue.front), Stall::Issue);
    queue.waits = true;
  }
  settle();
  return shared;
}

void CoreTimeline::start_shared(int64_t time) {
  constexpr auto kLoad = static_cast<size_t>(isa::Unit::Load);
  stall(kLoad, time, Stall::Cores);
  queues_[kLoad].waits = false;
  start(kLoad, time);
  settle();
}

// A set_flag stands before its wait_flag in program order, so going round until nothing moves finds every
// time that does not hang on an instruction that has not started or on the end of a transfer.
void CoreTimeline::settle() {
  for (bool moved = true; moved;) {
    moved = issue();
    for (size_t q = 0; q < kQueues; ++q) moved |= pass(q);
  }
  next_start_ = kNever;
  for (size_t q = 0; q < kQueues; ++q) {
    if (const int64_t start = start_of(q); start < next_start_) {
      next_start_ = start;
      next_queue_ = q;
    }
  }
}

bool CoreTimeline::issue() {
  const size_t first = next_;
  for (; next_ < tasks_->size(); ++next_) {
    const Task& task = (*tasks_)[next_];
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

// Takes flags out of the queue as far as their times are known. Flags pass a transfer on its way: what they
// let the sequencer issue may share the memory with it. Without banks no other instruction than a transfer
// touches what another core or queue does, so those need not be started in the order of time.
bool CoreTimeline::pass(size_t index) {
  Queue& queue = queues_[index];
  bool moved = false;
  for (; !queue.pending.empty(); moved = true) {
    const Pending& next = queue.pending.front();
    const Task::Kind kind = next.task->kind;
    if (kind == Task::Kind::SetFlag || kind == Task::Kind::WaitFlag) {
      const bool wait = kind == Task::Kind::WaitFlag;
      if (wait && next.set->visible == kUnknown) break;
      leave(queue, std::max({next.issued, queue.front, wait ? next.set->visible : 0}));
      queue.flags.push_back({next, queue.front});
      if (queue.transfer == nullptr) settle_flags(index);
      queue.pending.pop_front();
    } else if (kind != Task::Kind::Transfer && p_.spm_banks == 0) {
      start(index, start_of(index));
    } else {
      break;
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
      if (recorder_ != nullptr) flag.set->after = recorder_->last(number_, static_cast<int64_t>(index));
    } else {
      const auto cause = static_cast<Stall>(static_cast<size_t>(Stall::Load) + flag.set->queue);
      stall(index, flag.issued, Stall::Issue);
      stall(index, left, flag.task->accumulator ? Stall::Accumulator : cause);
      if (recorder_ != nullptr) {
        recorder_->waited(number_, static_cast<int64_t>(index), flag.set->after);
      }
    }
  }
  queue.flags.clear();
}

// When the first instruction of a queue starts, kNever where that is not known. A stationary tile goes into
// shadow registers while the array still works on earlier products. They are free then: instructions start in
// order, so the last product's start has taken the tile over.
int64_t CoreTimeline::start_of(size_t index) const {
  const Queue& queue = queues_[index];
  if (queue.pending.empty() || queue.transfer != nullptr || queue.waits) return kNever;
  const Pending& next = queue.pending.front();
  const int64_t start = std::max(next.issued, queue.front);
  switch (next.task->kind) {
    case Task::Kind::Stationary:
      return std::max(start, units_[kShadow].end);
    case Task::Kind::Product:
      return std::max({start, units_[index].end, units_[kShadow].end});
    case Task::Kind::Transfer:
    case Task::Kind::Vector:
      return std::max(start, units_[index].end);
    default:
      return kNever;  // a wait for a flag
  }
}

void CoreTimeline::start(size_t index, int64_t start) {
  Queue& queue = queues_[index];
  const Pending next = queue.pending.front();
  const Task& task = *next.task;
  stall(index, std::max(next.issued, queue.front), Stall::Issue);
  queue.pending.pop_front();
  leave(queue, start);

  const size_t unit = task.kind == Task::Kind::Stationary ? kShadow : index;
  if (task.kind == Task::Kind::Transfer && task.hbm_work != 0) {
    const int64_t alone = std::max(whole_cycle(hbm_.alone(task.hbm_work)), task.occupancy);
    if (task.meeting == Meetings::kNone) {
      hbm_.post(start, task.hbm_work, static_cast<uint32_t>(kQueues * number_ + index));
    }
    queue.transfer = &task;
    queue.transfer_start = start;
    queue.transfer_least = stretched(task.banks, start, alone);
    units_[unit] = {kNever, start + queue.transfer_least, task.banks};
  } else {
    const int64_t cycles = stretched(task.banks, start, task.occupancy);
    times_.queues[index].bank_conflicts += cycles - task.occupancy;
    units_[unit] = {start + cycles, start + cycles, task.banks};
    occupy(index, task, start, start + cycles);
  }
}

// What `cycles` grow to while units that are at work leave too little of a bank's port. They go on as before:
// the last to come pays. An instruction that asks for more than a port by itself has that in its costs.
int64_t CoreTimeline::stretched(const BankUse& use, int64_t start, int64_t cycles) const {
  if (use.rate == 0) return cycles;
  const double port = std::max(static_cast<double>(p_.spm_bank_bytes_per_cycle), use.rate);
  auto left = static_cast<double>(cycles);
  for (int64_t now = start;;) {
    int64_t change = kNever;  // when the next of the others leaves its banks
    for (const Unit& other : units_) {
      if (other.holds > now && (other.banks.banks & use.banks) != 0) change = std::min(change, other.holds);
    }
    const double speed = change == kNever ? 1 : std::min(1.0, port / most_wanted(use, now));
    const double rest = left / speed;
    if (change == kNever || rest <= static_cast<double>(change - now)) {
      return now - start + whole_cycle(rest);
    }
    left -= static_cast<double>(change - now) * speed;
    now = change;
  }
}

// Bytes a cycle that `use` and the units at work at `time` ask of the bank of `use` that is asked most.
double CoreTimeline::most_wanted(const BankUse& use, int64_t time) const {
  double most = 0;
  for (uint64_t banks = use.banks; banks != 0; banks &= banks - 1) {
    const uint64_t bank = banks & -banks;
    double rate = use.rate;
    for (const Unit& other : units_) {
      if (other.holds > time && (other.banks.banks & bank) != 0) rate += other.banks.rate;
    }
    most = std::max(most, rate);
  }
  return most;
}

void CoreTimeline::end_transfer(size_t index, double time) {
  Queue& queue = queues_[index];
  QueueTimes& times = times_.queues[index];
  const Task& task = *queue.transfer;
  const int64_t start = queue.transfer_start;
  const int64_t moved = std::max(whole_cycle(time), start + task.occupancy);
  const int64_t end = std::max(moved, start + queue.transfer_least);
  const int64_t alone = std::max(whole_cycle(hbm_.alone(task.hbm_work)), task.occupancy);
  times.hbm_contention += moved - start - alone;
  times.bank_conflicts += end - moved;
  occupy(index, task, start, end);
  units_[index].end = end;
  queue.transfer = nullptr;
  settle_flags(index);
  settle();
}

// The queue's unit works on `task`; the next instructions may start before it has completed.
void CoreTimeline::occupy(size_t index, const Task& task, int64_t start, int64_t end) {
  Queue& queue = queues_[index];
  QueueTimes& times = times_.queues[index];
  stall(index, start, Stall::Unit);
  times.busy += std::max<int64_t>(end - queue.cursor, 0);
  queue.cursor = std::max(queue.cursor, end);
  queue.done = std::max(queue.done, end + task.latency);
  if (recorder_ != nullptr) {
    recorder_->slice({number_, static_cast<int64_t>(index), task.kind == Task::Kind::Stationary,
                      task.instruction, task.location, start, end, end + task.latency});
  }
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

void CoreTimeline::release(int64_t time, OpTimes& op) {
  times_.sequencer.barrier += time - sequencer_;
  sequencer_ = time;
  const auto none = [](const std::deque<Set*>& sets) { return sets.empty(); };
  if (std::all_of(unmatched_.begin(), unmatched_.end(), none)) sets_.clear();
  for (size_t q = 0; q < kQueues; ++q) {
    stall(q, time, Stall::Barrier);
    add(op.queues[q], times_.queues[q], before_.queues[q]);
  }
  before_ = times_;
}

}  // namespace opennpu::timing
