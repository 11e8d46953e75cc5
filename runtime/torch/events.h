// An event of the driver, owned.
#pragma once

#include <exception>
#include <thread>
#include <utility>

#include "device.h"

namespace opennpu::torch_device {

class Event {
 public:
  explicit Event(const Chip& chip) : driver_(chip.driver) {
    check(driver_->event_create(chip.device, &event_));
  }
  // Behind the work that is queued on the stream now.
  Event(const Chip& chip, npu_stream stream) : Event(chip) { record(stream); }
  ~Event() { driver_->event_destroy(event_); }
  Event(Event&& other) noexcept : driver_(other.driver_), event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  void record(npu_stream stream) { check(driver_->event_record(event_, stream)); }

  // Makes later work of the stream wait for it.
  void block(npu_stream stream) const { check(driver_->stream_wait_event(stream, event_)); }

  bool happened() const {
    const npu_status status = driver_->event_query(event_);
    if (status == NPU_NOT_READY) return false;
    check(status);
    return true;
  }

  // Throws what the stream had failed with.
  void wait() const { check(driver_->event_synchronize(event_)); }

  // The same for who does not read what the stream has computed.
  void wait_for_end() const { driver_->event_synchronize(event_); }

  int64_t nanoseconds_until(const Event& end) const {
    int64_t nanoseconds;
    check(driver_->event_elapsed(event_, end.event_, &nanoseconds));
    return nanoseconds;
  }

 private:
  const npu_driver* driver_;
  npu_event event_ = nullptr;
};

// The events of memory that is freed while a stream may use it: one more, or none when the driver makes
// none and the stream has been waited for instead. Throws nothing: this runs where tensors end.
template <typename Add>
void add_event(const Chip& chip, npu_stream stream, const Add& add) noexcept {
  try {
    add(Event(chip, stream));
  } catch (const std::exception&) {
    while (chip.driver->stream_query(stream) == NPU_NOT_READY) std::this_thread::yield();
  }
}

}  // namespace opennpu::torch_device
