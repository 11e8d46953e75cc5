// The device's memory as PyTorch's allocator: data pointers are chip addresses.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include "device.h"

namespace opennpu::torch_device {

c10::DeviceAllocator& allocator();

// Memory of one device whatever the current device is, for work on its current stream.
// Throws c10::OutOfMemoryError.
c10::DataPtr allocate(DeviceIndex index, size_t bytes);

inline npu_address address_of(const void* data) { return reinterpret_cast<npu_address>(data); }

}  // namespace opennpu::torch_device
