#include "timing_model.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "../error.h"
#include "../launch.h"
#include "core_timeline.h"
#include "cost.h"

namespace opennpu::timing {

namespace {

constexpr uint64_t kMaxInstructions = uint64_t{1} << 32;  // per core, as the device's default

// Computes nothing: times do not depend on data.
class NoEngine final : public Engine {
 public:
  std::unique_ptr<EngineState> make_state(const npu_chip_desc&) const override { return nullptr; }
#define X(NAME) \
  void execute(Core&, const isa::NAME&) const override {}
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X
};

Task::Kind kind_of(isa::Formula formula) {
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

// Collects what every core does up to the next barrier, then times that stretch on all cores together: only
// there do cores wait for each other, so memory does not grow with the program's run.
class TimingModel final : public Observer {
 public:
  TimingModel(const npu_chip_desc& chip, const Parameters& parameters, size_t locations)
      : chip_(chip),
        p_(parameters),
        hbm_(1e9 * static_cast<double>(p_.hbm_gbps) / static_cast<double>(chip.clock_hz),
             static_cast<double>(p_.dma_bytes_per_cycle)) {
    report_.ops.resize(std::max<size_t>(locations, 1));
  }

  void begin(unsigned cores) override {
    for (unsigned i = 0; i < cores; ++i) cores_.emplace_back(i, *this);
  }

#define X(NAME)                                                                   \
  void before(const Core& core, const Site& site, const isa::NAME& op) override { \
    engine_task(core, site, op);                                                  \
  }
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X

  void before(const Core& core, const Site& site, const isa::SetFlag& op) override {
    flag_task(core, site, Task::Kind::SetFlag, op.queue, op.flag);
  }
  void before(const Core& core, const Site& site, const isa::WaitFlag& op) override {
    flag_task(core, site, Task::Kind::WaitFlag, op.queue, op.flag);
  }
  void before(const Core& core, const Site& site, const isa::SLd&) override {
    add(core, site, Task::Kind::ScalarLoad);
  }
  void before(const Core& core, const Site& site, const isa::Barrier&) override {
    add(core, site, Task::Kind::Barrier);
    halting_ = false;
  }
  void before(const Core& core, const Site& site, const isa::Halt&) override {
    add(core, site, Task::Kind::Barrier);
    halting_ = true;
  }

  void barrier_complete() override {
    for (CoreRecord& core : cores_) core.timeline.advance(core.tasks);
    while (!hbm_.idle()) {
      const SharedHbm::End end = hbm_.next();
      CoreRecord& core = cores_[end.id / kQueues];
      core.timeline.end_transfer(end.id, end.time);
      core.timeline.advance(core.tasks);
    }
    int64_t time = 0;
    for (const CoreRecord& core : cores_) time = std::max(time, core.timeline.arrival());
    if (!halting_) {
      time += p_.barrier_cycles;
      ++report_.barriers;
    }
    report_.ops[cores_.front().tasks.back().location].cycles += time - report_.cycles;
    report_.cycles = time;
    for (CoreRecord& core : cores_) {
      core.timeline.release(time);
      core.tasks.clear();
    }
  }

  std::string finish() override { return {}; }

  Report report(uint64_t instructions) {
    report_.instructions = instructions;
    for (const CoreRecord& core : cores_) report_.cores.push_back(core.timeline.times());
    return std::move(report_);
  }

 private:
  struct CoreRecord {
    CoreRecord(unsigned number, TimingModel& model)
        : cost(model.p_, model.chip_), timeline(number, model.p_, model.hbm_, model.report_.ops) {}
    CostModel cost;
    CoreTimeline timeline;
    std::vector<Task> tasks;
    uint64_t issued = 0;  // instructions up to the last task
  };

  // The new last task of the core.
  Task& add(const Core& core, const Site& site, Task::Kind kind) {
    CoreRecord& record = cores_[core.number];
    const uint64_t instructions = core.counters.instructions;
    Task task{};
    task.kind = kind;
    task.location = std::min(site.location, static_cast<uint32_t>(report_.ops.size() - 1));
    task.issue = static_cast<int64_t>(instructions - record.issued) * p_.issue_cycles;
    record.issued = instructions;
    record.tasks.push_back(task);
    return record.tasks.back();
  }

  template <typename I>
  void engine_task(const Core& core, const Site& site, const I& op) {
    const Cost cost = cores_[core.number].cost(op);
    Task& task = add(core, site, kind_of(I::kTiming.formula));
    task.queue = static_cast<uint8_t>(I::kUnit);
    task.occupancy = cost.occupancy;
    task.latency = cost.latency;
    task.hbm_work = cost.hbm_work;
    (I::kUnit == isa::Unit::Load ? report_.bytes_loaded : report_.bytes_stored) += cost.hbm_bytes;
    report_.macs += cost.macs;
    report_.row_macs += cost.row_macs;
    report_.ops[task.location].hbm_bytes += cost.hbm_bytes;
    report_.ops[task.location].macs += cost.macs;
  }

  // A flag that does not exist traps in the sequencer.
  void flag_task(const Core& core, const Site& site, Task::Kind kind, int64_t queue, int64_t flag) {
    if (flag < 0 || flag >= int64_t{isa::kFlags}) return;
    Task& task = add(core, site, kind);
    task.queue = static_cast<uint8_t>(queue);
    task.flag = static_cast<uint8_t>(flag);
  }

  const npu_chip_desc& chip_;
  const Parameters p_;
  SharedHbm hbm_;
  std::deque<CoreRecord> cores_;
  bool halting_ = false;
  Report report_;
};

}  // namespace

Report time_launch(const Program& program, const npu_chip_desc& chip, const Parameters& parameters,
                   std::span<const int64_t> args, const Hbm& hbm) {
  const NoEngine engine;
  TimingModel model(chip, parameters, program.locations.size());
  const std::vector<CoreMemory> memories(chip.cores, {nullptr, chip.spm_bytes, nullptr, chip.acc_bytes});
  Cores cores(chip, engine, hbm, memories, 1);  // the host's threads must not decide anything
  const LaunchResult result = cores.run({program, args, &model, kMaxInstructions});
  if (result.status != NPU_OK) throw Error{result.status, result.message};
  return model.report(result.counters.instructions);
}

}  // namespace opennpu::timing
