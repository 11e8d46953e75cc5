#include "device.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "../src/driver_library.h"

namespace opennpu::torch_device {

namespace {

std::function<Settings()> settings_source;
std::atomic<const Settings*> known_settings;
std::atomic<const npu_driver*> known_driver;
std::array<std::atomic<Chip*>, kMostDevices> chips;  // never freed: streams and tensors may outlive any owner
std::mutex opening;
std::atomic<bool> bad_fork;
thread_local DeviceIndex current = 0;

// A process that forks keeps its chips; the child has neither their threads nor their memory's contents.
void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { bad_fork = true; });
  TORCH_CHECK(registered == 0, "opennpu: cannot watch for forks");
}

const npu_driver* driver() {
  try {
    static const DriverLibrary library(settings().driver);
    return library.operator->();
  } catch (const Error& error) {
    TORCH_CHECK(false, "opennpu: ", error.message);
  }
}

Chip* open() {
  const Settings& wanted = settings();
  npu_device_options options{};
  options.engine = wanted.engine.empty() ? nullptr : wanted.engine.c_str();
  options.hbm_bytes = wanted.hbm_bytes;
  options.threads = wanted.threads;
  options.launch_limit_ms = wanted.launch_limit_ms;
  options.hide_memory = !wanted.host_visible;
  auto chip = std::make_unique<Chip>(Chip{driver(), nullptr, wanted.chip});
  known_driver = chip->driver;
  check(chip->driver->device_open(&wanted.chip, &options, &chip->device));
  watch_forks();
  return chip.release();
}

}  // namespace

void set_settings_source(std::function<Settings()> source) { settings_source = std::move(source); }

const Settings& settings() {
  if (const Settings* known = known_settings.load(std::memory_order_acquire)) return *known;
  // No lock is held while the source runs: it may need Python's. Who comes second drops its copy.
  TORCH_CHECK(settings_source, "opennpu: the device is not set up: import torch loads it");
  auto read = std::make_unique<const Settings>(settings_source());
  const Settings* none = nullptr;
  if (known_settings.compare_exchange_strong(none, read.get())) return *read.release();
  return *none;
}

DeviceIndex device_count() noexcept {
  try {
    return settings().devices;
  } catch (...) {
    return 1;  // a wrong setting is reported by the first use of the chip
  }
}

Chip& chip(DeviceIndex index) {
  TORCH_CHECK(!bad_fork.load(std::memory_order_relaxed),
              "opennpu: the device cannot be used in a forked child of a process that has used it; start "
              "processes with the \"spawn\" method (torch.multiprocessing.set_start_method(\"spawn\"))");
  if (index < 0) index = current;
  const DeviceIndex count = device_count();
  TORCH_CHECK(index < count, "opennpu: there is no device ", static_cast<int>(index), ": there ",
              count == 1 ? "is " : "are ", static_cast<int>(count), " (OPENNPU_DEVICES)");
  std::atomic<Chip*>& slot = chips[static_cast<size_t>(index)];
  if (Chip* open = slot.load(std::memory_order_acquire)) return *open;
  settings();  // may need Python's lock: not under ours
  std::lock_guard lock(opening);
  if (slot.load() == nullptr) slot = open();
  return *slot;
}

bool is_open(DeviceIndex index) noexcept {
  return index >= 0 && index < kMostDevices && chips[static_cast<size_t>(index)].load() != nullptr;
}

bool in_bad_fork() noexcept { return bad_fork; }

DeviceIndex current_device() noexcept { return current; }

void set_current_device(DeviceIndex index) {
  const DeviceIndex count = device_count();
  TORCH_CHECK(index >= 0 && index < count, "opennpu: there is no device ", static_cast<int>(index));
  current = index;
}

void fail(npu_status status) {
  const std::string message = known_driver.load()->last_error();
  TORCH_CHECK_WITH(OutOfMemoryError, status != NPU_ERROR_OUT_OF_MEMORY, "opennpu: ", message);
  throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, status, "opennpu: " + message);
}

}  // namespace opennpu::torch_device
