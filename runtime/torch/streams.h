// Streams of the device. Stream 0 is the default one; the others come from a pool, round robin.
#pragma once

#include <c10/core/Stream.h>

#include "device.h"

namespace opennpu::torch_device {

inline constexpr int kPoolStreams = 32;  // beside the default stream

// The driver's stream, made on first use.
npu_stream native_stream(c10::Stream stream);

// The calling thread's current stream, which work on the device goes to.
c10::Stream current_stream_of(DeviceIndex index);
npu_stream current_stream(DeviceIndex index);

// Makes `stream` the calling thread's current one of its device; returns the one before.
c10::Stream exchange_stream(c10::Stream stream);

c10::Stream default_stream(DeviceIndex index);
c10::Stream pool_stream(DeviceIndex index);

// Waits, without Python's lock if the caller holds it. Throws the stream's first failure.
void synchronize_stream(c10::Stream stream);
void synchronize_device(DeviceIndex index);

// Waits for the work queued so far on all streams of the device, and reports no failure. Keeps Python's
// lock if the caller has it, as who calls this may hold locks that others wait for with Python's.
void wait_for_streams(DeviceIndex index);

bool query_stream(c10::Stream stream);

}  // namespace opennpu::torch_device
