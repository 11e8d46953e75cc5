// PyTorch's device guard: current device, streams and events of the device type.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "allocator.h"
#include "events.h"
#include "streams.h"
#include "without_gil.h"

namespace opennpu::torch_device {

namespace {

using c10::Device;
using c10::Stream;

Event& event_of(void* event) { return *static_cast<Event*>(event); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }

  // ---- the current device

  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(kType, current_device()); }
  void setDevice(Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.index() >= 0 && device.index() < device_count()) set_current_device(device.index());
  }
  DeviceIndex deviceCount() const noexcept override { return device_count(); }
  c10::DeviceCapability getDeviceCapability(Device) const override { return {}; }
  void synchronizeDevice(DeviceIndex index) const override { synchronize_device(index); }

  // ---- streams

  Stream getStream(Device device) const override { return current_stream_of(device.index()); }
  Stream getDefaultStream(Device device) const override { return default_stream(device.index()); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return pool_stream(device.index()); }
  Stream getNewStream(Device device, int) const override { return pool_stream(device.index()); }
  Stream exchangeStream(Stream stream) const override { return exchange_stream(stream); }
  void* getStreamNativeHandle(Stream stream) const override { return native_stream(stream); }
  bool queryStream(const Stream& stream) const override { return query_stream(stream); }
  void synchronizeStream(const Stream& stream) const override { synchronize_stream(stream); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const Stream& stream) const override {
    allocator().recordStream(data, stream);
  }

  // ---- events; PyTorch keeps ours as void*, null before the first recording

  void record(void** event, const Stream& stream, const DeviceIndex device, c10::EventFlag) const override {
    TORCH_CHECK(device == -1 || device == stream.device_index(), "opennpu: an event of device ",
                static_cast<int>(device), " cannot be recorded on a stream of device ",
                static_cast<int>(stream.device_index()));
    if (*event == nullptr) *event = new Event(chip(stream.device_index()));
    event_of(*event).record(native_stream(stream));
  }
  void block(void* event, const Stream& stream) const override {
    if (event != nullptr) event_of(event).block(native_stream(stream));
  }
  bool queryEvent(void* event) const override { return event == nullptr || event_of(event).happened(); }
  void synchronizeEvent(void* event) const override {
    if (event == nullptr) return;
    WithoutGil release;
    event_of(event).wait();
  }
  double elapsedTime(void* start, void* end, const DeviceIndex) const override {
    TORCH_CHECK(start != nullptr && end != nullptr, "opennpu: both events must have been recorded");
    return static_cast<double>(event_of(start).nanoseconds_until(event_of(end))) * 1e-6;  // milliseconds
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    if (!in_bad_fork()) delete static_cast<Event*>(event);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace

}  // namespace opennpu::torch_device
