#include "core_tasks.h"

namespace opennpu::timing {

// A flag that does not exist, or that was never set, traps in the sequencer.
void CoreTasks::set_flag(const Core& core, const Site& site, const isa::SetFlag& op) {
  if (op.flag < 0 || op.flag >= int64_t{isa::kFlags}) return;
  flag(core, site, Task::Kind::SetFlag, op.queue, op.flag);
  const bool vector = static_cast<isa::Unit>(op.queue) == isa::Unit::Vector;
  sets_[static_cast<size_t>(op.flag)].push_back(vector ? emptied_ : Extent{});
}

void CoreTasks::wait_flag(const Core& core, const Site& site, const isa::WaitFlag& op) {
  if (op.flag < 0 || op.flag >= int64_t{isa::kFlags}) return;
  std::deque<Extent>& sets = sets_[static_cast<size_t>(op.flag)];
  if (sets.empty()) return;
  flag(core, site, Task::Kind::WaitFlag, op.queue, op.flag);
  if (static_cast<isa::Unit>(op.queue) == isa::Unit::Matrix)
    waits_.push_back({tasks_.size() - 1, sets.front()});
  sets.pop_front();
}

void CoreTasks::clear() {
  tasks_.clear();
  waits_.clear();
}

Task::Kind CoreTasks::kind_of(isa::Formula formula) {
  switch (formula) {
    case isa::Formula::Transfer:
    case isa::Formula::Indirect:
      return Task::Kind::Transfer;
    case isa::Formula::Stationary:
      return Task::Kind::Stationary;
    case isa::Formula::Product:
      return Task::Kind::Product;
    default:
      return Task::Kind::Vector;
  }
}

Task& CoreTasks::add(const Core& core, const Site& site, Task::Kind kind) {
  const uint64_t instructions = core.counters.instructions;
  Task& task = tasks_.emplace_back();
  task.kind = kind;
  task.location = site.location;
  task.instruction = site.instruction;
  task.issue = static_cast<uint32_t>(static_cast<int64_t>(instructions - issued_) * p_.issue_cycles);
  issued_ = instructions;
  return task;
}

Task& CoreTasks::flag(const Core& core, const Site& site, Task::Kind kind, int64_t queue, int64_t flag) {
  Task& task = add(core, site, kind);
  task.queue = static_cast<uint8_t>(queue);
  task.flag = static_cast<uint8_t>(flag);
  return task;
}

}  // namespace opennpu::timing
