// The chips behind the device "opennpu": settings, opening on first use, failures as PyTorch's errors.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <functional>
#include <string>

#include "opennpu/npu.h"

namespace opennpu::torch_device {

using c10::DeviceIndex;

inline constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
inline constexpr DeviceIndex kMostDevices = 64;

// What the environment asks for: runtime/settings.py documents it.
struct Settings {
  npu_chip_desc chip{};
  std::string engine;
  std::string driver;  // path of a driver library, "" for the virtual chip
  uint64_t hbm_bytes = 0;
  uint32_t threads = 0;
  uint64_t launch_limit_ms = 0;
  DeviceIndex devices = 1;
  bool host_visible = true;
  bool strict = false;
};

// Who reads the settings; called once, at the first use of `settings()`.
void set_settings_source(std::function<Settings()> source);
const Settings& settings();

// An open chip. It stays open until the process ends.
struct Chip {
  const npu_driver* driver;
  npu_device device;
  npu_chip_desc desc;
};

// Number of devices; never throws and opens none.
DeviceIndex device_count() noexcept;

// Opens the chip on first use. Throws for an index that does not exist, in a forked child of a process
// that has opened a chip, and when the driver fails.
Chip& chip(DeviceIndex index);

bool is_open(DeviceIndex index) noexcept;

// True in a child that was forked after a chip had been opened: nothing of the device works there.
bool in_bad_fork() noexcept;

// The calling thread's current device.
DeviceIndex current_device() noexcept;
void set_current_device(DeviceIndex index);  // throws for an index that does not exist

// Throws c10::OutOfMemoryError or c10::AcceleratorError, whose code is the status, with the driver's message.
[[noreturn]] void fail(npu_status status);

inline void check(npu_status status) {
  if (C10_UNLIKELY(status != NPU_OK)) fail(status);
}

}  // namespace opennpu::torch_device
