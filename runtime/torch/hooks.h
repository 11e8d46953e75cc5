#pragma once

namespace opennpu::torch_device {

// Tells PyTorch who answers for the device; once.
void register_hooks();

}  // namespace opennpu::torch_device
