// Owners of driver handles, each keeping alive what it depends on.
#pragma once

#include <memory>
#include <string>

#include "driver_library.h"

namespace opennpu {

struct DeviceHandle {
  DeviceHandle(const std::string& driver_path, const npu_chip_desc& chip, const npu_device_options& options)
      : driver(driver_path) {
    driver.check(driver->device_open(&chip, &options, &device));
  }
  // Borrows a device that its owner keeps open.
  DeviceHandle(const npu_driver* table, npu_device borrowed)
      : driver(table), device(borrowed), owned(false) {}
  ~DeviceHandle() {
    if (owned) driver->device_close(device);
  }
  DeviceHandle(const DeviceHandle&) = delete;
  DeviceHandle& operator=(const DeviceHandle&) = delete;

  DriverLibrary driver;
  npu_device device = nullptr;
  bool owned = true;
};

using DevicePtr = std::shared_ptr<DeviceHandle>;

struct BufferHandle {
  BufferHandle(DevicePtr d, uint64_t n) : device(std::move(d)), bytes(n) {
    device->driver.check(device->driver->memory_alloc(device->device, bytes, &address));
  }
  ~BufferHandle() { device->driver->memory_free(device->device, address); }
  BufferHandle(const BufferHandle&) = delete;
  BufferHandle& operator=(const BufferHandle&) = delete;

  std::byte* host() const {
    void* pointer;
    device->driver.check(device->driver->memory_host_pointer(device->device, address, &pointer));
    return static_cast<std::byte*>(pointer);
  }

  DevicePtr device;
  uint64_t bytes;
  npu_address address = 0;
};

struct ProgramHandle {
  ProgramHandle(DevicePtr d, const void* image, uint64_t bytes) : device(std::move(d)) {
    device->driver.check(device->driver->program_load(device->device, image, bytes, &program));
  }
  ~ProgramHandle() { device->driver->program_unload(program); }
  ProgramHandle(const ProgramHandle&) = delete;
  ProgramHandle& operator=(const ProgramHandle&) = delete;

  DevicePtr device;
  npu_program program = nullptr;
};

struct EventHandle {
  explicit EventHandle(DevicePtr d) : device(std::move(d)) {
    device->driver.check(device->driver->event_create(device->device, &event));
  }
  ~EventHandle() { device->driver->event_destroy(event); }
  EventHandle(const EventHandle&) = delete;
  EventHandle& operator=(const EventHandle&) = delete;

  DevicePtr device;
  npu_event event = nullptr;
};

struct StreamHandle {
  explicit StreamHandle(DevicePtr d) : device(std::move(d)) {
    device->driver.check(device->driver->stream_create(device->device, &stream));
  }
  ~StreamHandle() { close(); }
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;

  // Waits for the work and destroys the stream.
  void close() {
    if (stream != nullptr) device->driver->stream_destroy(stream);
    stream = nullptr;
  }

  DevicePtr device;
  npu_stream stream = nullptr;
};

}  // namespace opennpu
