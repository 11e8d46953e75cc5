// What one core does up to the next barrier, as tasks for its timeline.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "core_timeline.h"
#include "cost.h"
#include "meetings.h"
#include "operands.h"

namespace opennpu::timing {

// What the instructions of a stretch move and multiply.
struct Work {
  int64_t bytes_loaded = 0, bytes_stored = 0, shared_bytes = 0;
  int64_t macs = 0, row_macs = 0;
};

class CoreTasks {
 public:
  CoreTasks(const Parameters& parameters, const npu_chip_desc& chip, const SharedHbm& hbm, Meetings& meetings)
      : p_(parameters),
        hbm_(hbm),
        meetings_(meetings),
        cost_(parameters, chip),
        bank_bytes_(static_cast<int64_t>(chip.spm_bytes) / std::max<int64_t>(p_.spm_banks, 1)) {}

  template <typename I>
  void engine(const Core& core, const Site& site, const I& op, Work& work) {
    const Cost cost = cost_(op);
    Task& task = add(core, site, kind_of(I::kTiming.formula));
    task.queue = static_cast<uint8_t>(I::kUnit);
    task.occupancy = cost.occupancy;
    task.latency = cost.latency;
    task.hbm_work = cost.hbm_work;
    const bool reads = !share(core, op, task);
    (I::kUnit != isa::Unit::Load ? work.bytes_stored
     : reads                     ? work.bytes_loaded
                                 : work.shared_bytes) += cost.hbm_bytes;
    work.macs += cost.macs;
    work.row_macs += cost.row_macs;
    follow_accumulators(core, op);
    if (p_.spm_banks != 0 && cost.occupancy != 0) task.banks = bank_use(core, op, cost);
    if constexpr (std::is_same_v<I, isa::MxLoad>) stationary_ = {op.k, op.n, op.dtype};
  }

  void set_flag(const Core& core, const Site& site, const isa::SetFlag& op);
  void wait_flag(const Core& core, const Site& site, const isa::WaitFlag& op);
  void scalar_load(const Core& core, const Site& site) { add(core, site, Task::Kind::ScalarLoad); }
  void barrier(const Core& core, const Site& site) { add(core, site, Task::Kind::Barrier); }

  const std::vector<Task>& tasks() const { return tasks_; }
  void clear();

 private:
  // A wait of the matrix queue for what the vector queue last read from the accumulator.
  struct Wait {
    size_t task;
    Extent emptied;
  };

  // Whether another core reads HBM for this one.
  template <typename I>
  bool share(const Core& core, const I& op, Task& task) {
    if constexpr (std::is_same_v<I, isa::DmaLoad>) {
      if (!is_shared(op)) return false;
      const CoreGroup cores = sharing_cores(op, core.number, core.chip);
      task.meeting = meetings_.next(core.number, cores);
      task.latency += task.hbm_work == 0 ? 0 : p_.dma_share_cycles;
      return core.number != cores.first;
    }
    return false;
  }

  static Task::Kind kind_of(isa::Formula formula);
  Task& add(const Core& core, const Site& site, Task::Kind kind);
  Task& flag(const Core& core, const Site& site, Task::Kind kind, int64_t queue, int64_t flag);

  // A product that begins a new sum where the vector queue has read one waits for room, not for a value.
  template <typename I>
  void follow_accumulators(const Core& core, const I& op) {
    if constexpr (I::kUnit == isa::Unit::Vector) {
      visit_local(core, op, stationary_, [&](const Access& access) {
        if (access.memory == Memory::Acc && !access.write && !access.empty()) emptied_ = extent_of(access);
      });
    } else if constexpr (I::kUnit == isa::Unit::Matrix) {
      if constexpr (std::is_same_v<I, isa::MxMul>) {
        const Extent sum = strided_extent(op.dst, 4 * stationary_.n, {{op.rows, op.dst_stride}});
        for (const Wait& wait : waits_) {
          tasks_[wait.task].accumulator = op.accumulate == 0 && overlap(wait.emptied, sum);
        }
      }
      waits_.clear();
    }
  }

  template <typename I>
  BankUse bank_use(const Core& core, const I& op, const Cost& cost) const {
    BankUse use;
    int64_t bytes = 0;
    visit_local(core, op, stationary_, [&](const Access& access) {
      if (access.memory != Memory::Spm || access.empty()) return;
      use.touch(extent_of(access), bank_bytes_);
      bytes += access.bytes * access.walks[0].count * access.walks[1].count * access.walks[2].count;
    });
    const double alone = cost.hbm_work == 0 ? 0 : hbm_.alone(cost.hbm_work);
    use.spread(bytes, std::max(alone, static_cast<double>(cost.occupancy)));
    return use;
  }

  const Parameters p_;
  const SharedHbm& hbm_;
  Meetings& meetings_;
  CostModel cost_;
  const int64_t bank_bytes_;
  Stationary stationary_;
  std::vector<Task> tasks_;
  uint64_t issued_ = 0;                               // instructions up to the last task
  Extent emptied_;                                    // the accumulators that the vector queue read last
  std::array<std::deque<Extent>, isa::kFlags> sets_;  // by flag: `emptied_` at each set that no wait has met
  std::vector<Wait> waits_;                           // of the matrix queue's next instruction
};

}  // namespace opennpu::timing
