// Streams (queues of work) and events (points in their order).
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "error.h"
#include "program.h"

namespace opennpu {

class Device;

// One recording of an event.
class EventPoint {
 public:
  using Clock = std::chrono::steady_clock;

  // `failure`: what the stream had failed with by then.
  void happen(std::optional<Error> failure);
  void wait() const;
  std::optional<Clock::time_point> time() const;                    // none until it has happened
  const std::optional<Error>& failure() const { return failure_; }  // once it has happened

 private:
  Clock::time_point time_;
  std::optional<Error> failure_;
  std::atomic<uint32_t> happened_{0};
};

// One entry of a stream. Its place in the queue is used again, so that a launch allocates nothing.
struct Work {
  enum class Kind { Copy, Launch, Record, Wait } kind = Kind::Copy;
  std::byte* to = nullptr;  // Copy
  const std::byte* from = nullptr;
  uint64_t bytes = 0;
  const Program* program = nullptr;  // Launch
  std::vector<npu_arg> args;
  std::shared_ptr<EventPoint> point;  // Record, Wait
};

// A queue of work that runs in order: on a thread of the stream's own, or on one that waits for it.
class Stream {
 public:
  explicit Stream(Device& device);
  ~Stream();  // waits for the work
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Queues the work that `fill(Work&)` describes; it sets the kind and all that the kind needs. Copies,
  // launches and waits are skipped after a failure that nobody has taken yet, recordings are not.
  template <typename Fill>
  void push(const Fill& fill) {
    {
      std::lock_guard lock(mutex_);
      fill(next_place());
      ++pushed_;
    }
    wake();
  }

  // Waits for the work pushed so far, running it here if nobody else does yet.
  void wait();

  // Whether all work has run.
  bool idle();

  // The first failure since the last call, if there is one.
  std::optional<Error> take_failure();

 private:
  Work& next_place();
  bool pending();
  void wake();
  void serve();
  bool drain(uint32_t limit);
  bool take(uint32_t limit);
  void run(Work& work);
  std::optional<Error> attempt(Work& work);

  Device& device_;
  std::mutex mutex_;          // of the next four
  std::vector<Work> places_;  // a ring; work number i has place i mod its size, a power of 2
  uint32_t pushed_ = 0, taken_ = 0;
  std::optional<Error> failure_;
  std::atomic<bool> running_{false};  // whether a thread runs the work; it owns current_
  Work current_;
  std::atomic<uint32_t> done_{0};   // pieces of work
  std::atomic<uint32_t> wakes_{0};  // changes when the thread has to look
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace opennpu
