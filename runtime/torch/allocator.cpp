#include "allocator.h"

#include "copies.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

struct Direct final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override { return torch_device::allocate(current_device(), bytes); }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    const Chip& open = chip(current_device());
    check(open.driver->copy_on_device(current_stream(current_device()), address_of(to), address_of(from),
                                      bytes));
  }
  bool initialized() override { return is_open(current_device()); }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex) override { return {}; }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex) override {}
};

struct Block {
  DeviceIndex index;
  npu_address address;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  if (block == nullptr || in_bad_fork()) return;
  wait_for_streams(block->index);
  const Chip& open = chip(block->index);
  open.driver->memory_free(open.device, block->address);
  delete block;
}

const c10::AllocatorRegisterer<kType> registered(&allocator());

}  // namespace

c10::DeviceAllocator& allocator() {
  static auto* instance = new Direct;
  return *instance;
}

c10::DataPtr allocate(DeviceIndex index, size_t bytes) {
  const c10::Device device(kType, index);
  const Chip& open = chip(index);
  if (bytes == 0) return {nullptr, nullptr, &release, device};
  npu_address address;
  check(open.driver->memory_alloc(open.device, bytes, &address));
  return {reinterpret_cast<void*>(address), new Block{index, address}, &release, device};
}

}  // namespace opennpu::torch_device
