#include "launch.h"

#include <exception>
#include <optional>
#include <string>

namespace opennpu {

namespace {

// One core and how far it got.
struct Runner {
  Runner(const LaunchContext& launch, unsigned number, CoreMemory memory)
      : sequencer(launch, number, memory) {}

  void advance() {
    try {
      state = sequencer.run();
    } catch (const Error& e) {
      error = e;
    } catch (const std::exception& e) {
      error = Error{NPU_ERROR_INTERNAL, e.what()};
    }
  }

  Sequencer sequencer;
  Sequencer::State state = Sequencer::State::Running;
  std::optional<Error> error;
};

class LaunchRun {
 public:
  LaunchRun(const LaunchContext& launch, std::span<const CoreMemory> memories, uint32_t workers)
      : launch_(launch), workers_(workers), barrier_(workers) {
    runners_.reserve(memories.size());
    for (unsigned i = 0; i < memories.size(); ++i) runners_.emplace_back(launch, i, memories[i]);
  }

  // From barrier to barrier; a worker runs its cores one after the other.
  void work(uint32_t worker) {
    while (!over_) {
      for (size_t i = worker; i < runners_.size(); i += workers_) runners_[i].advance();
      barrier_.arrive([this] { over_ = settle(); });
    }
  }

  LaunchResult result() const {
    LaunchResult out;
    if (error_) {
      out.status = error_->status;
      out.message = error_->message;
    }
    for (const Runner& runner : runners_) {
      const npu_counters& c = runner.sequencer.counters();
      out.counters.instructions += c.instructions;
      out.counters.bytes_loaded += c.bytes_loaded;
      out.counters.bytes_stored += c.bytes_stored;
      out.counters.macs += c.macs;
    }
    return out;
  }

 private:
  // All cores have stopped: whether the launch is over. The error of the lowest core is reported.
  bool settle() {
    for (const Runner& runner : runners_) {
      if (runner.error) return fail(*runner.error);
    }
    const Runner* waiting = nullptr;
    const Runner* halted = nullptr;
    for (const Runner& runner : runners_) {
      (runner.state == Sequencer::State::Halted ? halted : waiting) = &runner;
    }
    if (waiting != nullptr && halted != nullptr) {
      return fail({NPU_ERROR_TRAP, "core " + number(waiting) + " waits at a barrier before " +
                                       launch_.program.describe(waiting->sequencer.site()) + ", core " +
                                       number(halted) +
                                       " has halted: every core must run the same number of barriers"});
    }
    if (launch_.observer != nullptr) launch_.observer->barrier_complete();
    return waiting == nullptr;
  }

  bool fail(const Error& error) {
    error_ = error;
    return true;
  }

  std::string number(const Runner* runner) const { return std::to_string(runner - runners_.data()); }

  const LaunchContext& launch_;
  const uint32_t workers_;
  SpinBarrier barrier_;
  std::vector<Runner> runners_;
  std::optional<Error> error_;
  bool over_ = false;  // written between the arrival at a barrier and its end
};

}  // namespace

LaunchResult run_launch(const LaunchContext& launch, std::span<const CoreMemory> memories, Workers& workers) {
  if (launch.observer != nullptr) launch.observer->begin(static_cast<unsigned>(memories.size()));
  LaunchRun run(launch, memories, workers.count());
  workers.run([&](uint32_t worker) { run.work(worker); });
  LaunchResult result = run.result();
  if (launch.observer != nullptr) {
    const std::string races = launch.observer->finish();
    if (result.status == NPU_OK && !races.empty()) {
      result.status = NPU_ERROR_RACE;
      result.message = races;
    }
  }
  return result;
}

}  // namespace opennpu
