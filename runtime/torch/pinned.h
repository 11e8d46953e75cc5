// Pinned host memory: what the device may read and write behind the program's back. Blocks that a copy
// uses are not given out again before the copy has run.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Stream.h>

namespace opennpu::torch_device {

c10::Allocator* pinned_allocator();

// Whether `data` points into pinned memory.
bool is_pinned(const void* data);

// Pinned memory at `data` is in use by what is queued on `stream` now.
void record_pinned(const void* data, c10::Stream stream);

// Gives memory that is not in use back to the system.
void empty_pinned_cache();

}  // namespace opennpu::torch_device
