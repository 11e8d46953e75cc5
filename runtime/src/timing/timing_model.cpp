#include "timing_model.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "../error.h"
#include "../launch.h"
#include "core_tasks.h"
#include "core_timeline.h"

namespace opennpu::timing {

namespace {

constexpr uint32_t kSharedTransfers = uint32_t{1} << 31;  // in the memory their ids begin here
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

// Collects what every core does up to the next barrier, then times that stretch on all cores together: only
// there do cores wait for each other, so memory does not grow with the program's run.
class TimingModel final : public Observer {
 public:
  TimingModel(const npu_chip_desc& chip, const Parameters& parameters, size_t locations, Recorder* recorder)
      : chip_(chip),
        p_(parameters),
        hbm_(1e9 * static_cast<double>(p_.hbm_gbps) / static_cast<double>(chip.clock_hz),
             static_cast<double>(p_.dma_bytes_per_cycle)),
        recorder_(recorder) {
    report_.ops.resize(std::max<size_t>(locations, 1));
  }

  void begin(unsigned cores) override {
    for (unsigned i = 0; i < cores; ++i) {
      tasks_.emplace_back(p_, chip_, hbm_, meetings_);
      timelines_.emplace_back(i, p_, hbm_, recorder_);
    }
    starts_.resize(cores);
  }

#define X(NAME)                                                                   \
  void before(const Core& core, const Site& site, const isa::NAME& op) override { \
    tasks_[core.number].engine(core, site, op, work_);                            \
  }
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X

  void before(const Core& core, const Site& site, const isa::SetFlag& op) override {
    tasks_[core.number].set_flag(core, site, op);
  }
  void before(const Core& core, const Site& site, const isa::WaitFlag& op) override {
    tasks_[core.number].wait_flag(core, site, op);
  }
  void before(const Core& core, const Site& site, const isa::SLd&) override {
    tasks_[core.number].scalar_load(core, site);
  }
  void before(const Core& core, const Site& site, const isa::Barrier&) override {
    tasks_[core.number].barrier(core, site);
    halting_ = false;
  }
  void before(const Core& core, const Site& site, const isa::Halt&) override {
    tasks_[core.number].barrier(core, site);
    halting_ = true;
  }

  void barrier_complete() override {
    run_stretch();
    int64_t time = 0;
    for (const CoreTimeline& core : timelines_) time = std::max(time, core.arrival());
    if (!halting_) {
      time += p_.barrier_cycles;
      ++report_.barriers;
    }
    end_stretch(time);
  }

  std::string finish() override { return {}; }

  Report report(uint64_t instructions) {
    report_.instructions = instructions;
    for (const CoreTimeline& core : timelines_) report_.cores.push_back(core.times());
    return std::move(report_);
  }

 private:
  // Starts of instructions and ends of transfers on all cores, in the order of time; an end goes before a
  // start.
  void run_stretch() {
    for (size_t i = 0; i < timelines_.size(); ++i) {
      timelines_[i].begin(tasks_[i].tasks());
      starts_[i] = timelines_[i].next_start();
    }
    for (;;) {
      auto core = static_cast<size_t>(std::min_element(starts_.begin(), starts_.end()) - starts_.begin());
      const double end = hbm_.next_end();
      if (starts_[core] == CoreTimeline::kNever && hbm_.idle()) return;
      if (end <= static_cast<double>(starts_[core])) {
        end_transfer(hbm_.end_next(), end);
      } else {
        start_next(core);
      }
    }
  }

  void start_next(size_t core) {
    const int64_t now = starts_[core];
    const Task* shared = timelines_[core].start_next();
    starts_[core] = timelines_[core].next_start();
    if (shared == nullptr || !meetings_.arrive(shared->meeting)) return;
    if (shared->hbm_work != 0) {
      hbm_.post(now, shared->hbm_work, kSharedTransfers + shared->meeting);
    }
    for_cores(shared->meeting, [now](CoreTimeline& core) { core.start_shared(now); });
  }

  void end_transfer(uint32_t id, double time) {
    if (id >= kSharedTransfers) {
      constexpr auto kLoad = static_cast<size_t>(isa::Unit::Load);
      for_cores(id - kSharedTransfers, [time](CoreTimeline& core) { core.end_transfer(kLoad, time); });
    } else {
      const size_t core = id / kQueues;
      timelines_[core].end_transfer(id % kQueues, time);
      starts_[core] = timelines_[core].next_start();
    }
  }

  // Every core of a shared load.
  template <typename Step>
  void for_cores(Meetings::Id meeting, const Step& step) {
    const CoreGroup cores = meetings_.cores(meeting);
    for (uint32_t i = 0; i < cores.count; ++i) {
      CoreTimeline& core = timelines_[cores[i]];
      step(core);
      starts_[cores[i]] = core.next_start();
    }
  }

  void end_stretch(int64_t time) {
    const uint32_t location = tasks_.front().tasks().back().location;
    OpTimes& op = report_.ops[std::min<size_t>(location, report_.ops.size() - 1)];
    for (size_t i = 0; i < timelines_.size(); ++i) {
      timelines_[i].release(time, op);
      tasks_[i].clear();
    }
    meetings_.clear();
    if (recorder_ != nullptr) recorder_->stretch({location, report_.cycles, time});
    op.cycles += time - report_.cycles;
    op.stretches += 1;
    op.hbm_bytes += work_.bytes_loaded + work_.bytes_stored;
    op.shared_bytes += work_.shared_bytes;
    op.macs += work_.macs;
    op.row_macs += work_.row_macs;
    report_.cycles = time;
    report_.bytes_loaded += work_.bytes_loaded;
    report_.bytes_stored += work_.bytes_stored;
    report_.shared_bytes += work_.shared_bytes;
    report_.macs += work_.macs;
    report_.row_macs += work_.row_macs;
    work_ = {};
  }

  const npu_chip_desc& chip_;
  const Parameters p_;
  SharedHbm hbm_;
  Recorder* const recorder_;
  Meetings meetings_;                   // of the stretch
  std::deque<CoreTasks> tasks_;         // by core
  std::deque<CoreTimeline> timelines_;  // by core
  std::vector<int64_t> starts_;         // by core: its next start
  Work work_;                           // of the stretch
  bool halting_ = false;
  Report report_;
};

}  // namespace

Report time_launch(const Program& program, const npu_chip_desc& chip, const Parameters& parameters,
                   std::span<const int64_t> args, const Hbm& hbm, Recorder* recorder) {
  const NoEngine engine;
  TimingModel model(chip, parameters, program.locations.size(), recorder);
  const std::vector<CoreMemory> memories(chip.cores, {nullptr, chip.spm_bytes, nullptr, chip.acc_bytes});
  Cores cores(chip, engine, hbm, memories, 1);  // the host's threads must not decide anything
  const LaunchResult result = cores.run({program, args, &model, kMaxInstructions});
  if (result.status != NPU_OK) throw Error{result.status, result.message};
  return model.report(result.counters.instructions);
}

}  // namespace opennpu::timing
