#include "launch.h"

#include <algorithm>
#include <exception>

#include "waiting.h"

namespace opennpu {

namespace {

constexpr auto kAlone = std::chrono::microseconds(5);  // of a launch, before sleepers are called
constexpr uint64_t kSlice = 16;                        // instructions between two looks at the clock, alone
constexpr uint64_t kWatchedSlice = 1024;               // and under a limit of time

}  // namespace

Cores::Cores(const npu_chip_desc& chip, const Engine& engine, const Hbm& hbm,
             std::span<const CoreMemory> memories, uint32_t threads) {
  for (unsigned i = 0; i < memories.size(); ++i) runners_.emplace_back(chip, engine, hbm, memories[i], i);
  try {
    for (uint32_t thread = 1; thread < threads; ++thread)
      threads_.emplace_back([this, thread] { serve(thread); });
  } catch (const std::exception& error) {  // std::system_error or std::bad_alloc
    stop();
    throw Error{NPU_ERROR_OUT_OF_MEMORY,
                "the host cannot start " + std::to_string(threads) + " threads: " + error.what()};
  }
}

Cores::~Cores() { stop(); }

void Cores::stop() {
  stopping_ = true;
  phase_.fetch_add(2, std::memory_order_release);
  phase_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

LaunchResult Cores::run(const Launch& launch) {
  if (launch.observer != nullptr) launch.observer->begin(static_cast<unsigned>(runners_.size()));
  for (Runner& runner : runners_) {
    runner.sequencer.begin(launch);
    runner.error.reset();
  }
  launch_ = &launch;
  error_.reset();
  called_.store(false, std::memory_order_relaxed);
  unfinished_.store(static_cast<uint32_t>(runners_.size()), std::memory_order_relaxed);
  start_ = Clock::now();
  uint32_t phase = phase_.fetch_add(1, std::memory_order_acq_rel) + 1;
  for (; phase % 2 != 0; phase = phase_.load(std::memory_order_acquire)) {
    work(0, phase);
    wait_while_equal(phase_, phase);
  }
  LaunchResult out = result();
  if (launch.observer != nullptr) {
    const std::string races = launch.observer->finish();
    if (out.status == NPU_OK && !races.empty()) {
      out.status = NPU_ERROR_RACE;
      out.message = races;
    }
  }
  return out;
}

void Cores::serve(uint32_t thread) {
  for (uint32_t seen = 0; !stopping_.load(std::memory_order_relaxed);) {
    wait_while_equal(phase_, seen);
    seen = phase_.load(std::memory_order_acquire);
    if (seen % 2 != 0) work(thread, seen);
  }
}

// Runs the cores that nobody has taken yet, the thread's own before others'. A phase may end and the
// next begin meanwhile: a core is only claimed in a later phase than before, and while one can still be
// claimed in `phase`, that phase has not ended.
void Cores::work(uint32_t thread, uint32_t phase) {
  const size_t threads = threads_.size() + 1;
  for (size_t i = 0; i < threads; ++i) {
    for (size_t core = (thread + i) % threads; core < runners_.size(); core += threads)
      claim(runners_[core], phase);
  }
}

void Cores::claim(Runner& runner, uint32_t phase) {
  uint32_t last = runner.claimed.load(std::memory_order_relaxed);
  if (static_cast<int32_t>(phase - last) <= 0) return;
  if (!runner.claimed.compare_exchange_strong(last, phase, std::memory_order_relaxed)) return;
  advance(runner);
  if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) next_phase(phase);
}

void Cores::advance(Runner& runner) {
  const std::chrono::milliseconds limit = launch_->time_limit;
  const uint64_t long_slice = limit.count() == 0 ? UINT64_MAX : kWatchedSlice;
  try {
    do {
      runner.state = runner.sequencer.run(called_.load(std::memory_order_relaxed) ? long_slice : kSlice);
      call_sleepers();
      if (limit.count() != 0 && runner.state != Sequencer::State::Halted) check_time(runner, limit);
    } while (runner.state == Sequencer::State::Running);
  } catch (const Error& error) {
    runner.error = error;
  } catch (const std::exception& error) {
    runner.error = Error{NPU_ERROR_INTERNAL, error.what()};
  }
}

void Cores::check_time(const Runner& runner, std::chrono::milliseconds limit) const {
  if (Clock::now() - start_ < limit) return;
  throw runner.sequencer.failure(NPU_ERROR_TIMEOUT, "the launch ran past the limit of " +
                                                        std::to_string(limit.count()) + " milliseconds");
}

void Cores::call_sleepers() {
  if (called_.load(std::memory_order_relaxed) || Clock::now() - start_ < kAlone) return;
  called_.store(true, std::memory_order_relaxed);
  phase_.notify_all();
}

// Called by the thread that ended the phase, before any other can go on.
void Cores::next_phase(uint32_t phase) {
  const bool over = settle();
  call_sleepers();
  const bool wake = called_.load(std::memory_order_relaxed);  // the launching thread may sleep by now
  unfinished_.store(static_cast<uint32_t>(runners_.size()), std::memory_order_relaxed);
  phase_.store(phase + (over ? 1 : 2), std::memory_order_release);
  if (wake) phase_.notify_all();
}

// Every core has stopped: whether the launch is over. The error of the lowest core is reported.
bool Cores::settle() {
  for (const Runner& runner : runners_) {
    if (runner.error) return fail(*runner.error);
  }
  const Runner* waiting = nullptr;
  const Runner* halted = nullptr;
  for (const Runner& runner : runners_) {
    (runner.state == Sequencer::State::Halted ? halted : waiting) = &runner;
  }
  if (waiting != nullptr && halted != nullptr) {
    return fail({NPU_ERROR_TRAP, "core " + std::to_string(waiting->sequencer.number()) +
                                     " waits at a barrier before " +
                                     launch_->program.describe(waiting->sequencer.site()) + ", core " +
                                     std::to_string(halted->sequencer.number()) +
                                     " has halted: every core must run the same number of barriers"});
  }
  if (const auto problem = meet_shared_loads()) return fail({NPU_ERROR_TRAP, *problem});
  if (launch_->observer != nullptr) launch_->observer->barrier_complete();
  return waiting == nullptr;
}

std::optional<std::string> Cores::meet_shared_loads() {
  const auto none = [](const Runner& runner) { return runner.sequencer.shared_loads().empty(); };
  if (std::all_of(runners_.begin(), runners_.end(), none)) return std::nullopt;
  std::vector<const std::vector<SharedLoad>*> loads;
  for (const Runner& runner : runners_) loads.push_back(&runner.sequencer.shared_loads());
  const auto problem = meet(loads, [&](const Site& site) { return launch_->program.describe(site); });
  for (Runner& runner : runners_) runner.sequencer.forget_shared_loads();
  return problem;
}

bool Cores::fail(const Error& error) {
  error_ = error;
  return true;
}

LaunchResult Cores::result() const {
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

}  // namespace opennpu
