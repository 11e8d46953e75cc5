// The cores of a chip and the threads that run them.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "sequencer.h"

namespace opennpu {

struct LaunchResult {
  npu_status status = NPU_OK;
  std::string message;
  npu_counters counters{};  // of this launch; busy_ns is not set
};

// Everything that a launch needs is made here once.
//
// A launch is a sequence of phases, from barrier to barrier. In each phase every core is run by the
// thread that claims it first: the launching thread begins alone, and one of the others that is awake
// joins at once. Sleeping ones are called when the launch has run for some microseconds, so that a
// small program costs no wake-up.
class Cores {
 public:
  // `memories` has one entry a core. chip, engine and hbm outlive the object. Throws Error when the
  // host cannot start `threads` - 1 threads.
  Cores(const npu_chip_desc& chip, const Engine& engine, const Hbm& hbm, std::span<const CoreMemory> memories,
        uint32_t threads);
  ~Cores();
  Cores(const Cores&) = delete;
  Cores& operator=(const Cores&) = delete;

  // Runs a program on all cores; one call at a time. What is computed and which error is reported do
  // not depend on the number of threads.
  LaunchResult run(const Launch& launch);

 private:
  using Clock = std::chrono::steady_clock;

  // One core and how far it got.
  struct Runner {
    Runner(const npu_chip_desc& chip, const Engine& engine, const Hbm& hbm, CoreMemory memory,
           unsigned number)
        : sequencer(chip, engine, hbm, memory, number) {}
    Sequencer sequencer;
    Sequencer::State state = Sequencer::State::Running;
    std::optional<Error> error;
    std::atomic<uint32_t> claimed{0};  // the phase in which a thread took it last
  };

  void serve(uint32_t thread);
  void stop();
  void work(uint32_t thread, uint32_t phase);
  void claim(Runner& runner, uint32_t phase);
  void advance(Runner& runner);
  void check_time(const Runner& runner, std::chrono::milliseconds limit) const;
  void call_sleepers();
  void next_phase(uint32_t phase);
  bool settle();
  std::optional<std::string> meet_shared_loads();
  bool fail(const Error& error);
  LaunchResult result() const;

  std::deque<Runner> runners_;
  std::vector<std::thread> threads_;
  std::atomic<uint32_t> phase_{0};       // odd while a launch runs
  std::atomic<uint32_t> unfinished_{0};  // cores that have not ended the phase
  std::atomic<bool> called_{false};      // whether sleepers are to be woken
  std::atomic<bool> stopping_{false};
  const Launch* launch_ = nullptr;
  Clock::time_point start_;
  std::optional<Error> error_;
};

}  // namespace opennpu
