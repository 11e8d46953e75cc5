// Streams (queues of work with a thread each) and events (points in their order).
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "error.h"

namespace opennpu {

// One recording of an event.
class EventPoint {
 public:
  using Clock = std::chrono::steady_clock;

  void happen();
  void wait() const;
  std::optional<Clock::time_point> time() const;  // none until it has happened

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::optional<Clock::time_point> time_;
};

class Stream {
 public:
  Stream();
  ~Stream();  // waits for the work
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Queues work, which may throw Error; skipped after a failure that nobody has taken yet.
  void push(std::function<void()> work);

  // Queues work that runs even after a failure; does not throw.
  void push_always(std::function<void()> work);

  // Waits for all work.
  void wait();

  // The first failure since the last call, if there is one.
  std::optional<Error> take_failure();

 private:
  struct Item {
    std::function<void()> work;
    bool always;
  };
  void enqueue(Item item);
  void serve();
  std::optional<Error> run(const Item& item);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;  // the front is being run
  std::optional<Error> failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace opennpu
