// Random generators: Mersenne twisters on the host, as PyTorch's CPU device has them.
#pragma once

#include <ATen/core/Generator.h>

#include <optional>

#include "device.h"

namespace opennpu::torch_device {

const at::Generator& default_generator(DeviceIndex index);
at::Generator new_generator(DeviceIndex index);

// The CPU generator behind a generator of the device, or behind the device's default when there is none:
// what a random operator takes that runs on the host. One of the CPU comes back as it is.
at::Generator host_generator(const std::optional<at::Generator>& generator, DeviceIndex index);

}  // namespace opennpu::torch_device
