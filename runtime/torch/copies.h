// Copies between host and device, and on the device where no program is needed.
#pragma once

#include <ATen/core/Tensor.h>

#include "device.h"

namespace opennpu::torch_device {

// Queues a copy of `bytes` bytes on the current stream of the device. The host memory is free for any use
// when the call returns, except that of a non-blocking copy from pinned memory: when the stream has got
// there.
void copy_to_device(DeviceIndex index, npu_address to, const void* from, size_t bytes,
                    bool non_blocking = false);

// As above; the bytes are there when the stream has got there.
void queue_copy_to_host(DeviceIndex index, void* to, npu_address from, size_t bytes);

// The same, and waits for it.
void copy_to_host(DeviceIndex index, void* to, npu_address from, size_t bytes);

// dst = src, both on one device, of any dtype and strides, by way of the host: for what no program does.
void copy_by_host(const at::Tensor& dst, const at::Tensor& src);

}  // namespace opennpu::torch_device
