// Numbers among the operands of a call, as 0-d tensors on the chip.
#pragma once

#include <ATen/core/Tensor.h>

#include "device.h"

namespace opennpu::torch_device {

// `value`, a 0-d host tensor, in `dtype` on the device: from a table, so that a number is copied once.
at::Tensor constant(const at::Tensor& value, at::ScalarType dtype, DeviceIndex index);

}  // namespace opennpu::torch_device
