#include "stream.h"

#include <cstring>
#include <exception>

#include "device.h"
#include "waiting.h"

namespace opennpu {

namespace {

constexpr size_t kPlaces = 16;  // to begin with

// Work is counted modulo 2^32.
bool before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

}  // namespace

void EventPoint::happen(std::optional<Error> failure) {
  time_ = Clock::now();
  failure_ = std::move(failure);
  happened_.store(1, std::memory_order_release);
  happened_.notify_all();
}

void EventPoint::wait() const { wait_while_equal(happened_, 0); }

std::optional<EventPoint::Clock::time_point> EventPoint::time() const {
  if (happened_.load(std::memory_order_acquire) == 0) return std::nullopt;
  return time_;
}

Stream::Stream(Device& device) : device_(device), places_(kPlaces), thread_([this] { serve(); }) {}

Stream::~Stream() {
  stopping_ = true;
  wake();
  thread_.join();
}

bool Stream::pending() {
  std::lock_guard lock(mutex_);
  return taken_ != pushed_;
}

// The place of work number pushed_. The mutex is held.
Work& Stream::next_place() {
  if (pushed_ - taken_ == places_.size()) {
    std::vector<Work> more(2 * places_.size());
    for (uint32_t i = taken_; i != pushed_; ++i)
      more[i % more.size()] = std::move(places_[i % places_.size()]);
    places_ = std::move(more);
  }
  return places_[pushed_ % places_.size()];
}

void Stream::wake() {
  wakes_.fetch_add(1, std::memory_order_release);
  wakes_.notify_one();
}

void Stream::wait() {
  uint32_t limit;
  {
    std::lock_guard lock(mutex_);
    limit = pushed_;
  }
  for (uint32_t done; before(done = done_.load(std::memory_order_acquire), limit);) {
    if (!drain(limit)) {
      wait_while_equal(done_, done);
    } else if (pending()) {
      wake();  // pushed meanwhile, and the thread may have looked in vain
    }
  }
}

bool Stream::idle() {
  std::lock_guard lock(mutex_);
  return done_ == pushed_;
}

std::optional<Error> Stream::take_failure() {
  std::lock_guard lock(mutex_);
  return std::exchange(failure_, std::nullopt);
}

void Stream::serve() {
  for (;;) {
    const uint32_t seen = wakes_.load(std::memory_order_acquire);
    const bool last = stopping_;
    uint32_t limit;
    {
      std::lock_guard lock(mutex_);
      limit = pushed_;
    }
    drain(limit);
    if (last) return;
    wait_while_equal(wakes_, seen);
  }
}

// Runs the work before number `limit`; false when another thread is running work.
bool Stream::drain(uint32_t limit) {
  if (running_.exchange(true, std::memory_order_acquire)) return false;
  while (take(limit)) {
    run(current_);
    done_.fetch_add(1, std::memory_order_release);
    done_.notify_all();
  }
  running_.store(false, std::memory_order_release);
  return true;
}

// Moves the next work to current_, which leaves its memory in the place.
bool Stream::take(uint32_t limit) {
  std::lock_guard lock(mutex_);
  if (!before(taken_, limit)) return false;
  std::swap(current_, places_[taken_++ % places_.size()]);
  return true;
}

void Stream::run(Work& work) {
  std::optional<Error> before;
  {
    std::lock_guard lock(mutex_);
    before = failure_;
  }
  std::optional<Error> failure;
  if (work.kind == Work::Kind::Record) {
    work.point->happen(std::move(before));
  } else if (!before) {
    failure = attempt(work);
  }
  work.point.reset();
  if (!failure) return;
  std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
}

std::optional<Error> Stream::attempt(Work& work) {
  try {
    switch (work.kind) {
      case Work::Kind::Copy:
        std::memcpy(work.to, work.from, work.bytes);
        break;
      case Work::Kind::Launch:
        device_.run(*work.program, work.args);
        break;
      case Work::Kind::Wait:
        work.point->wait();
        return work.point->failure();
      case Work::Kind::Record:
        break;
    }
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error{NPU_ERROR_INTERNAL, error.what()};
  }
  return std::nullopt;
}

}  // namespace opennpu
