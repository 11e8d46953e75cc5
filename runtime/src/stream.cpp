#include "stream.h"

#include <exception>
#include <utility>

namespace opennpu {

void EventPoint::happen() {
  {
    std::lock_guard lock(mutex_);
    time_ = Clock::now();
  }
  changed_.notify_all();
}

void EventPoint::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return time_.has_value(); });
}

std::optional<EventPoint::Clock::time_point> EventPoint::time() const {
  std::lock_guard lock(mutex_);
  return time_;
}

Stream::Stream() : thread_([this] { serve(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::push(std::function<void()> work) { enqueue({std::move(work), false}); }

void Stream::push_always(std::function<void()> work) { enqueue({std::move(work), true}); }

void Stream::enqueue(Item item) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(item));
  }
  changed_.notify_all();
}

void Stream::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queue_.empty(); });
}

std::optional<Error> Stream::take_failure() {
  std::lock_guard lock(mutex_);
  return std::exchange(failure_, std::nullopt);
}

void Stream::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Item& item = queue_.front();  // a deque keeps its elements in place
    if (item.always || !failure_) {
      lock.unlock();
      std::optional<Error> failure = run(item);
      lock.lock();
      if (failure && !failure_) failure_ = std::move(failure);
    }
    queue_.pop_front();
    if (queue_.empty()) changed_.notify_all();
  }
}

std::optional<Error> Stream::run(const Item& item) {
  try {
    item.work();
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error{NPU_ERROR_INTERNAL, error.what()};
  }
  return std::nullopt;
}

}  // namespace opennpu
