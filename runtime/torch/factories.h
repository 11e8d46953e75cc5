#pragma once

#include <c10/core/Storage.h>

#include "device.h"

namespace opennpu::torch_device {

// Gives the storage `bytes` bytes; keeps as much of its contents as fits.
void resize_storage(const c10::Storage& storage, size_t bytes);

}  // namespace opennpu::torch_device
