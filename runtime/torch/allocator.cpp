#include "allocator.h"

#include <array>
#include <mutex>

#include "caching.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

CachedMemory& memory(DeviceIndex index) {
  static std::array<CachedMemory*, kMostDevices> memories;  // never freed: tensors may outlive static objects
  static std::array<std::once_flag, kMostDevices> made;
  if (index < 0) index = current_device();
  TORCH_CHECK(index < kMostDevices, "opennpu: there is no device ", static_cast<int>(index));
  const auto i = static_cast<size_t>(index);
  std::call_once(made[i], [&] { memories[i] = new CachedMemory(index); });
  return *memories[i];
}

void tell_profiler(npu_address address, DeviceIndex index, int64_t change) {
  if (!c10::memoryProfilingEnabled()) return;
  const auto stats = memory(index).stats();
  c10::reportMemoryUsageToProfiler(reinterpret_cast<void*>(address), change,
                                   static_cast<size_t>(stats.allocated_bytes[0].current),
                                   static_cast<size_t>(stats.reserved_bytes[0].current), {kType, index});
}

void release(void* context) {
  if (context == nullptr || in_bad_fork()) return;
  auto* block = static_cast<Block*>(context);
  const npu_address address = block->address;
  const auto bytes = static_cast<int64_t>(block->size);
  const DeviceIndex index = block->owner->index();
  block->owner->free(block);
  tell_profiler(address, index, -bytes);
}

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override { return torch_device::allocate(current_device(), bytes); }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    const DeviceIndex index = current_device();
    check(chip(index).driver->copy_on_device(current_stream(index), address_of(to), address_of(from), bytes));
  }

  bool initialized() override { return is_open(current_device()); }

  void emptyCache(c10::MempoolId_t) override {
    for (DeviceIndex index = 0; index < device_count(); ++index) memory(index).release_free_segments();
  }

  void recordStream(const c10::DataPtr& data, c10::Stream stream) override {
    if (data.get_deleter() != &release || data.get_context() == nullptr) return;  // not from here
    auto* block = static_cast<Block*>(data.get_context());
    block->owner->record(block, stream);
  }

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    return memory(index).stats();
  }
  void resetAccumulatedStats(DeviceIndex index) override { memory(index).reset_accumulated_stats(); }
  void resetPeakStats(DeviceIndex index) override { memory(index).reset_peak_stats(); }

  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) override {
    const Chip& open = chip(index);
    uint64_t total, free;
    check(open.driver->memory_info(open.device, &total, &free));
    return {free, total};
  }
};

const c10::AllocatorRegisterer<kType> registered(&allocator());

}  // namespace

c10::DeviceAllocator& allocator() {
  static auto* instance = new Allocator;
  return *instance;
}

void limit_memory(DeviceIndex index, size_t bytes) { memory(index).limit(bytes); }

std::vector<SegmentInfo> memory_snapshot(DeviceIndex index) { return memory(index).snapshot(); }

c10::DataPtr allocate(DeviceIndex index, size_t bytes) {
  if (index < 0) index = current_device();
  chip(index);
  const c10::Device device(kType, index);
  if (bytes == 0) return {nullptr, nullptr, &release, device};
  Block* block = memory(index).allocate(bytes, current_stream_of(index).id());
  tell_profiler(block->address, index, static_cast<int64_t>(block->size));
  return {reinterpret_cast<void*>(block->address), block, &release, device};
}

}  // namespace opennpu::torch_device
