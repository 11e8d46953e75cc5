// The C interface: handles, statuses and the function table. No exception leaves this file.
#include <memory>
#include <new>
#include <span>
#include <string>

#include "device.h"
#include "error.h"
#include "opennpu/npu.h"

using namespace opennpu;

struct npu_device_s : Device {
  using Device::Device;
};

struct npu_program_s {
  Device& device;
  Program program;
};

struct npu_stream_s {
  explicit npu_stream_s(Device& d) : device(d) { device.add_stream(queue); }
  ~npu_stream_s() {
    device.remove_stream(queue);
    queue->wait();  // a synchronisation of the device may keep the queue itself a little longer
  }
  Device& device;
  const std::shared_ptr<Stream> queue = std::make_shared<Stream>(device);
};

struct npu_event_s {
  std::shared_ptr<EventPoint> latest() {
    std::lock_guard lock(mutex);
    return point;
  }
  std::mutex mutex;
  std::shared_ptr<EventPoint> point;  // none before the first recording
};

namespace {

thread_local std::string last_message;

npu_status report(npu_status status, std::string message) {
  last_message = std::move(message);
  return status;
}

// Turns what a call throws into status and message.
template <typename Call>
npu_status guarded(Call call) noexcept {
  try {
    return call();
  } catch (const Error& error) {
    return report(error.status, error.message);
  } catch (const std::bad_alloc&) {
    return report(NPU_ERROR_OUT_OF_MEMORY, "the host is out of memory");
  } catch (const std::exception& error) {
    return report(NPU_ERROR_INTERNAL, error.what());
  }
}

template <typename... Pointers>
void require(Pointers... pointers) {
  if ((... || (pointers == nullptr))) throw Error{NPU_ERROR_INVALID_ARGUMENT, "a required pointer is NULL"};
}

const char* last_error() { return last_message.c_str(); }

// ---- devices

npu_status device_open(const npu_chip_desc* chip, const npu_device_options* options, npu_device* device) {
  return guarded([&] {
    require(chip, options, device);
    *device = new npu_device_s(*chip, *options);
    return NPU_OK;
  });
}

void device_close(npu_device device) { delete device; }

npu_status device_synchronize(npu_device device) {
  return guarded([&] {
    require(device);
    device->synchronize();
    return NPU_OK;
  });
}

npu_status device_counters(npu_device device, npu_counters* counters) {
  return guarded([&] {
    require(device, counters);
    *counters = device->counters();
    return NPU_OK;
  });
}

npu_status device_reset_counters(npu_device device) {
  return guarded([&] {
    require(device);
    device->reset_counters();
    return NPU_OK;
  });
}

// ---- memory

npu_status memory_alloc(npu_device device, uint64_t bytes, npu_address* address) {
  return guarded([&] {
    require(device, address);
    *address = device->memory().alloc(bytes);
    return NPU_OK;
  });
}

npu_status memory_free(npu_device device, npu_address address) {
  return guarded([&] {
    require(device);
    device->memory().free(address);
    return NPU_OK;
  });
}

npu_status memory_info(npu_device device, uint64_t* total, uint64_t* free) {
  return guarded([&] {
    require(device);
    if (total != nullptr) *total = device->memory().total();
    if (free != nullptr) *free = device->memory().available();
    return NPU_OK;
  });
}

npu_status memory_host_pointer(npu_device device, npu_address address, void** pointer) {
  return guarded([&] {
    require(device, pointer);
    device->memory().check(address, 1);
    if (device->hides_memory()) {
      throw Error{NPU_ERROR_UNSUPPORTED,
                  "the host does not see this chip's memory: use the copies of a stream"};
    }
    *pointer = device->memory().base() + address;
    return NPU_OK;
  });
}

// ---- streams

npu_status stream_create(npu_device device, npu_stream* stream) {
  return guarded([&] {
    require(device, stream);
    *stream = new npu_stream_s(*device);
    return NPU_OK;
  });
}

void stream_destroy(npu_stream stream) { delete stream; }

npu_status stream_synchronize(npu_stream stream) {
  return guarded([&] {
    require(stream);
    stream->queue->wait();
    if (const auto failure = stream->queue->take_failure()) throw *failure;
    return NPU_OK;
  });
}

npu_status stream_query(npu_stream stream) {
  return guarded([&] {
    require(stream);
    return stream->queue->idle() ? NPU_OK : NPU_NOT_READY;
  });
}

// The host address of HBM bytes that a copy reads or writes.
std::byte* host_bytes(npu_stream stream, npu_address address, uint64_t bytes) {
  Memory& memory = stream->device.memory();
  memory.check(address, bytes);
  return memory.base() + address;
}

npu_status push_copy(npu_stream stream, void* to, const void* from, uint64_t bytes) {
  stream->queue->push([=](Work& work) {
    work.kind = Work::Kind::Copy;
    work.to = static_cast<std::byte*>(to);
    work.from = static_cast<const std::byte*>(from);
    work.bytes = bytes;
  });
  return NPU_OK;
}

npu_status copy_to_device(npu_stream stream, npu_address to, const void* from, uint64_t bytes) {
  return guarded([&] {
    require(stream, from);
    return push_copy(stream, host_bytes(stream, to, bytes), from, bytes);
  });
}

npu_status copy_to_host(npu_stream stream, void* to, npu_address from, uint64_t bytes) {
  return guarded([&] {
    require(stream, to);
    return push_copy(stream, to, host_bytes(stream, from, bytes), bytes);
  });
}

npu_status copy_on_device(npu_stream stream, npu_address to, npu_address from, uint64_t bytes) {
  return guarded([&] {
    require(stream);
    std::byte* target = host_bytes(stream, to, bytes);
    const std::byte* source = host_bytes(stream, from, bytes);
    if (to < from + bytes && from < to + bytes) {
      throw Error{NPU_ERROR_INVALID_ARGUMENT, "the source and the target of a copy overlap"};
    }
    return push_copy(stream, target, source, bytes);
  });
}

// ---- programs

npu_status program_load(npu_device device, const void* image, uint64_t bytes, npu_program* program) {
  return guarded([&] {
    require(device, image, program);
    const std::span all(static_cast<const std::byte*>(image), bytes);
    *program = new npu_program_s{*device, parse_image(all, device->chip())};
    return NPU_OK;
  });
}

void program_unload(npu_program program) { delete program; }

npu_status launch(npu_stream stream, npu_program program, const npu_arg* args, uint32_t count) {
  return guarded([&] {
    require(stream, program);
    if (count != 0) require(args);
    if (&stream->device != &program->device) {
      throw Error{NPU_ERROR_INVALID_ARGUMENT, "the stream and the program belong to different devices"};
    }
    const std::span all(args, count);
    stream->device.check_args(program->program, all);
    stream->queue->push([&](Work& work) {
      work.kind = Work::Kind::Launch;
      work.program = &program->program;
      work.args.assign(all.begin(), all.end());
    });
    return NPU_OK;
  });
}

// ---- events

npu_status event_create(npu_device device, npu_event* event) {
  return guarded([&] {
    require(device, event);
    *event = new npu_event_s;
    return NPU_OK;
  });
}

void event_destroy(npu_event event) { delete event; }

void push_point(npu_stream stream, Work::Kind kind, const std::shared_ptr<EventPoint>& point) {
  stream->queue->push([&](Work& work) {
    work.kind = kind;
    work.point = point;
  });
}

npu_status event_record(npu_event event, npu_stream stream) {
  return guarded([&] {
    require(event, stream);
    auto point = std::make_shared<EventPoint>();
    std::lock_guard lock(event->mutex);
    push_point(stream, Work::Kind::Record, point);
    event->point = std::move(point);
    return NPU_OK;
  });
}

npu_status stream_wait_event(npu_stream stream, npu_event event) {
  return guarded([&] {
    require(stream, event);
    if (auto point = event->latest()) push_point(stream, Work::Kind::Wait, point);
    return NPU_OK;
  });
}

npu_status event_query(npu_event event) {
  return guarded([&] {
    require(event);
    const auto point = event->latest();
    return point == nullptr || point->time() ? NPU_OK : NPU_NOT_READY;
  });
}

npu_status event_synchronize(npu_event event) {
  return guarded([&] {
    require(event);
    if (const auto point = event->latest()) {
      point->wait();
      if (point->failure()) throw *point->failure();
    }
    return NPU_OK;
  });
}

npu_status event_elapsed(npu_event start, npu_event end, int64_t* nanoseconds) {
  return guarded([&] {
    require(start, end, nanoseconds);
    const auto from = start->latest(), to = end->latest();
    if (from == nullptr || to == nullptr || !from->time() || !to->time()) {
      throw Error{NPU_ERROR_INVALID_ARGUMENT, "an event that has not happened has no time"};
    }
    *nanoseconds = std::chrono::nanoseconds(*to->time() - *from->time()).count();
    return NPU_OK;
  });
}

constexpr npu_driver kDriver = {
    .version = NPU_DRIVER_VERSION,
    .name = "virtual",
    .last_error = last_error,
    .device_open = device_open,
    .device_close = device_close,
    .device_synchronize = device_synchronize,
    .device_counters = device_counters,
    .device_reset_counters = device_reset_counters,
    .memory_alloc = memory_alloc,
    .memory_free = memory_free,
    .memory_info = memory_info,
    .memory_host_pointer = memory_host_pointer,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_synchronize = stream_synchronize,
    .stream_query = stream_query,
    .copy_to_device = copy_to_device,
    .copy_to_host = copy_to_host,
    .copy_on_device = copy_on_device,
    .program_load = program_load,
    .program_unload = program_unload,
    .launch = launch,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .stream_wait_event = stream_wait_event,
    .event_query = event_query,
    .event_synchronize = event_synchronize,
    .event_elapsed = event_elapsed,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const npu_driver* npu_get_driver(uint32_t version) {
  return version == NPU_DRIVER_VERSION ? &kDriver : nullptr;
}
