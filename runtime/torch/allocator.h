// The device's memory as PyTorch's allocator: data pointers are chip addresses.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <vector>

#include "device.h"

namespace opennpu::torch_device {

c10::DeviceAllocator& allocator();

// Memory of one device whatever the current device is, for work on its current stream.
// Throws c10::OutOfMemoryError.
c10::DataPtr allocate(DeviceIndex index, size_t bytes);

// The most bytes to take from the chip; `c10::OutOfMemoryError` beyond.
void limit_memory(DeviceIndex index, size_t bytes);

// What has been taken from the chip, segment by segment; `stream` is the stream's id.
std::vector<c10::CachingDeviceAllocator::SegmentInfo> memory_snapshot(DeviceIndex index);

inline npu_address address_of(const void* data) { return reinterpret_cast<npu_address>(data); }

}  // namespace opennpu::torch_device
