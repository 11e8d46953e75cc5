#include "streams.h"

#include <Python.h>

#include <array>
#include <atomic>
#include <mutex>

#include "events.h"
#include "without_gil.h"

namespace opennpu::torch_device {

namespace {

struct DeviceStreams {
  std::array<std::atomic<npu_stream>, 1 + kPoolStreams> made{};
  std::mutex making;
  std::atomic<uint32_t> next{0};
};

std::array<DeviceStreams, kMostDevices> streams;
thread_local std::array<c10::StreamId, kMostDevices> current{};

npu_stream native(DeviceIndex index, c10::StreamId id) {
  TORCH_CHECK(id >= 0 && id <= kPoolStreams, "opennpu: there is no stream ", id);
  DeviceStreams& of_device = streams[static_cast<size_t>(index)];
  std::atomic<npu_stream>& slot = of_device.made[static_cast<size_t>(id)];
  if (npu_stream stream = slot.load(std::memory_order_acquire)) return stream;
  Chip& open = chip(index);
  std::lock_guard lock(of_device.making);
  npu_stream stream = slot;
  if (stream == nullptr) {
    check(open.driver->stream_create(open.device, &stream));
    slot = stream;
  }
  return stream;
}

c10::Stream stream_of(DeviceIndex index, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, index), id);
}

}  // namespace

npu_stream native_stream(c10::Stream stream) { return native(stream.device_index(), stream.id()); }

c10::Stream current_stream_of(DeviceIndex index) {
  if (index < 0) index = current_device();
  return stream_of(index, current[static_cast<size_t>(index)]);
}

npu_stream current_stream(DeviceIndex index) { return native_stream(current_stream_of(index)); }

c10::Stream exchange_stream(c10::Stream stream) {
  const c10::Stream before = current_stream_of(stream.device_index());
  current[static_cast<size_t>(stream.device_index())] = stream.id();
  return before;
}

c10::Stream default_stream(DeviceIndex index) { return stream_of(index < 0 ? current_device() : index, 0); }

c10::Stream pool_stream(DeviceIndex index) {
  if (index < 0) index = current_device();
  const uint32_t turn = streams[static_cast<size_t>(index)].next.fetch_add(1);
  return stream_of(index, 1 + turn % kPoolStreams);
}

void synchronize_stream(c10::Stream stream) {
  const Chip& open = chip(stream.device_index());
  npu_stream native = native_stream(stream);
  WithoutGil release;
  check(open.driver->stream_synchronize(native));
}

void synchronize_device(DeviceIndex index) {
  if (index < 0) index = current_device();
  if (!is_open(index)) return;
  const Chip& open = chip(index);
  WithoutGil release;
  check(open.driver->device_synchronize(open.device));
}

void wait_for_streams(DeviceIndex index) {
  for (const auto& stream : streams[static_cast<size_t>(index)].made) {
    if (npu_stream native = stream.load()) Event(chip(index), native).wait_for_end();
  }
}

bool query_stream(c10::Stream stream) {
  const npu_status status = chip(stream.device_index()).driver->stream_query(native_stream(stream));
  if (status != NPU_NOT_READY) check(status);
  return status == NPU_OK;
}

}  // namespace opennpu::torch_device
