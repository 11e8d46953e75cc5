// The module opennpu.runtime._core: the driver interface as Python objects. Blocking calls
// release the interpreter lock; a stream keeps what its work uses until it is synchronised.
#include "bindings.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "handles.h"

namespace nb = nanobind;
using namespace opennpu;

npu_chip_desc opennpu::chip_desc(nb::handle chip) {
  npu_chip_desc out{};
  const auto name = nb::cast<std::string>(chip.attr("name"));
  std::strncpy(out.name, name.c_str(), sizeof out.name - 1);
  const auto get = [&](const char* key) { return nb::cast<uint64_t>(chip.attr(key)); };
  out.fingerprint = get("fingerprint");
  out.cores = static_cast<uint32_t>(get("cores"));
  out.align_bytes = static_cast<uint32_t>(get("align_bytes"));
  out.clock_hz = get("clock_mhz") * 1000000;
  out.spm_bytes = get("spm_bytes");
  out.acc_bytes = get("acc_bytes");
  out.hbm_bytes = get("hbm_bytes");
  out.mx_k = static_cast<uint32_t>(get("mx_k"));
  out.mx_n = static_cast<uint32_t>(get("mx_n"));
  out.strip = static_cast<uint32_t>(get("strip"));
  out.pair = static_cast<uint32_t>(get("pair"));
  out.share_cores = static_cast<uint32_t>(get("share_cores"));
  return out;
}

namespace {

const char* status_name(npu_status status) {
  constexpr const char* kNames[] = {
      "ok",         "not_ready", "invalid_argument", "unsupported", "out_of_memory", "invalid_program",
      "wrong_chip", "trap",      "timeout",          "race",        "internal",      "device_lost"};
  return status < std::size(kNames) ? kNames[status] : "unknown";
}

// NpuError, a RuntimeError with the attribute `status`.
void bind_error(nb::module_& m) {
  static PyObject* type = PyErr_NewExceptionWithDoc(
      "opennpu.runtime.NpuError", "A failure of the driver; `status` is its kind, e.g. \"trap\".",
      PyExc_RuntimeError, nullptr);
  m.attr("NpuError") = nb::borrow(type);
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Error& error) {
      // A location in a hostile program need not be UTF-8.
      nb::object message = nb::steal(PyUnicode_DecodeUTF8(
          error.message.data(), static_cast<Py_ssize_t>(error.message.size()), "replace"));
      nb::object exception = nb::handle(type)(message);
      exception.attr("status") = status_name(error.status);
      PyErr_SetObject(type, exception.ptr());
    }
  });
}

// A limit of some seconds is one of at least a millisecond.
uint64_t milliseconds(double seconds) { return static_cast<uint64_t>(std::ceil(seconds * 1000)); }

DevicePtr open_device(nb::handle chip, const std::string& engine, uint32_t threads, bool race_check,
                      uint64_t hbm_bytes, uint64_t max_instructions, double launch_limit, bool hide_memory,
                      const std::string& driver) {
  npu_device_options options{};
  options.engine = engine.empty() ? nullptr : engine.c_str();
  options.threads = threads;
  options.race_check = race_check;
  options.hbm_bytes = hbm_bytes;
  options.max_instructions = max_instructions;
  options.launch_limit_ms = milliseconds(launch_limit);
  options.hide_memory = hide_memory;
  return std::make_shared<DeviceHandle>(driver, chip_desc(chip), options);
}

// A device that another library has opened and keeps open; the capsules hold its driver's table and itself.
DevicePtr adopt_device(const nb::capsule& driver, const nb::capsule& device) {
  return std::make_shared<DeviceHandle>(static_cast<const npu_driver*>(driver.data("npu_driver")),
                                        static_cast<npu_device>(device.data("npu_device")));
}

nb::dict counters(const DeviceHandle& self) {
  npu_counters c;
  self.driver.check(self.driver->device_counters(self.device, &c));
  nb::dict out;
  out["launches"] = c.launches;
  out["instructions"] = c.instructions;
  out["bytes_loaded"] = c.bytes_loaded;
  out["bytes_stored"] = c.bytes_stored;
  out["macs"] = c.macs;
  out["busy_ns"] = c.busy_ns;
  return out;
}

using Bytes = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;
using HostBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstHostBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A stream, and the Python objects that its queued work uses.
struct PyStream : StreamHandle {
  using StreamHandle::StreamHandle;
  ~PyStream() { close(); }  // before what the work uses goes away

  void synchronize() {
    std::vector<nb::object> done;
    done.swap(in_use);
    npu_status status;
    std::string message;
    {
      nb::gil_scoped_release release;
      status = device->driver->stream_synchronize(stream);
      if (status != NPU_OK) message = device->driver->last_error();
    }
    if (status != NPU_OK) throw Error{status, message};
  }

  std::vector<nb::object> in_use;
};

// The address of `bytes` bytes at `offset` of a buffer that the stream may use. The driver only sees
// addresses: it cannot tell one buffer from the next, or from another device's.
npu_address address_in(const PyStream& stream, const BufferHandle& buffer, uint64_t offset, uint64_t bytes,
                       const std::string& what = "") {
  if (buffer.device.get() != stream.device.get()) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, what + "the buffer belongs to another device than the stream"};
  }
  if (offset > buffer.bytes || bytes > buffer.bytes - offset) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT,
                what + std::to_string(bytes) + " bytes at byte " + std::to_string(offset) +
                    " reach past the end of a buffer of " + std::to_string(buffer.bytes) + " bytes"};
  }
  return buffer.address + offset;
}

// Arguments: an int is a scalar, a tuple (buffer, offset, bytes) a buffer.
void launch(PyStream& self, nb::object program, nb::sequence args) {
  std::vector<npu_arg> list;
  std::vector<nb::object> used{program};
  for (nb::handle arg : args) {
    if (nb::isinstance<nb::tuple>(arg)) {
      const auto [buffer, offset, bytes] = nb::cast<std::tuple<nb::object, uint64_t, uint64_t>>(arg);
      const std::string what = "argument " + std::to_string(list.size()) + ": ";
      const npu_address address = address_in(self, nb::cast<BufferHandle&>(buffer), offset, bytes, what);
      list.push_back({NPU_ARG_BUFFER, address, bytes});
      used.push_back(buffer);
    } else {
      list.push_back({NPU_ARG_SCALAR, static_cast<uint64_t>(nb::cast<int64_t>(arg)), 0});
    }
  }
  const npu_program handle = nb::cast<ProgramHandle&>(program).program;
  const DriverLibrary& driver = self.device->driver;
  driver.check(driver->launch(self.stream, handle, list.data(), static_cast<uint32_t>(list.size())));
  self.in_use.insert(self.in_use.end(), used.begin(), used.end());
}

void copy_in(PyStream& self, nb::object to, uint64_t offset, nb::object from) {
  const auto host = nb::cast<ConstHostBytes>(from);
  const DriverLibrary& driver = self.device->driver;
  const npu_address address = address_in(self, nb::cast<BufferHandle&>(to), offset, host.size());
  driver.check(driver->copy_to_device(self.stream, address, host.data(), host.size()));
  self.in_use.insert(self.in_use.end(), {to, from});
}

void copy_out(PyStream& self, nb::object to, nb::object from, uint64_t offset) {
  const auto host = nb::cast<HostBytes>(to);
  const DriverLibrary& driver = self.device->driver;
  const npu_address address = address_in(self, nb::cast<BufferHandle&>(from), offset, host.size());
  driver.check(driver->copy_to_host(self.stream, host.data(), address, host.size()));
  self.in_use.insert(self.in_use.end(), {to, from});
}

void bind_device(nb::module_& m) {
  nb::class_<DeviceHandle>(m, "Device")
      .def(nb::new_(&open_device), nb::arg("chip"), nb::arg("engine") = "", nb::arg("threads") = 0,
           nb::arg("race_check") = false, nb::arg("hbm_bytes") = 0, nb::arg("max_instructions") = 0,
           nb::arg("launch_limit") = 0.0, nb::arg("hide_memory") = false, nb::arg("driver") = "")
      .def_static("adopt", &adopt_device, nb::arg("driver"), nb::arg("device"))
      .def_prop_ro("driver", [](const DeviceHandle& self) { return self.driver->name; })
      .def("counters", &counters)
      .def("reset_counters",
           [](const DeviceHandle& self) {
             self.driver.check(self.driver->device_reset_counters(self.device));
           })
      .def("memory_info",
           [](const DeviceHandle& self) {
             uint64_t total, free;
             self.driver.check(self.driver->memory_info(self.device, &total, &free));
             return std::tuple(total, free);
           })
      .def("synchronize", [](const DeviceHandle& self) {
        nb::gil_scoped_release release;
        self.driver.check(self.driver->device_synchronize(self.device));
      });
  nb::class_<BufferHandle>(m, "Buffer")
      .def(nb::init<DevicePtr, uint64_t>(), nb::arg("device"), nb::arg("bytes"))
      .def_ro("address", &BufferHandle::address)
      .def_ro("bytes", &BufferHandle::bytes)
      .def(
          "numpy",
          [](nb::object self) {
            const auto& buffer = nb::cast<const BufferHandle&>(self);
            return Bytes(buffer.host(), {buffer.bytes}, self);
          },
          "The memory itself as uint8 [bytes]; the array keeps the buffer alive.");
  nb::class_<ProgramHandle>(m, "Program")
      .def(
          "__init__",
          [](ProgramHandle* self, DevicePtr device, nb::bytes image) {
            new (self) ProgramHandle(std::move(device), image.data(), image.size());
          },
          nb::arg("device"), nb::arg("image"));
}

void bind_streams(nb::module_& m) {
  nb::class_<EventHandle>(m, "Event")
      .def(nb::init<DevicePtr>(), nb::arg("device"))
      .def("query",
           [](const EventHandle& self) {
             const npu_status status = self.device->driver->event_query(self.event);
             if (status != NPU_NOT_READY) self.device->driver.check(status);
             return status == NPU_OK;
           })
      .def(
          "synchronize",
          [](const EventHandle& self) {
            self.device->driver.check(self.device->driver->event_synchronize(self.event));
          },
          nb::call_guard<nb::gil_scoped_release>())
      .def("elapsed_ns", [](const EventHandle& self, const EventHandle& end) {
        int64_t nanoseconds;
        self.device->driver.check(self.device->driver->event_elapsed(self.event, end.event, &nanoseconds));
        return nanoseconds;
      });
  nb::class_<PyStream>(m, "Stream")
      .def(nb::init<DevicePtr>(), nb::arg("device"))
      .def("launch", &launch, nb::arg("program"), nb::arg("args"))
      .def("copy_in", &copy_in, nb::arg("to"), nb::arg("offset"), nb::arg("source"))
      .def("copy_out", &copy_out, nb::arg("to"), nb::arg("source"), nb::arg("offset"))
      .def("record",
           [](PyStream& self, EventHandle& event) {
             self.device->driver.check(self.device->driver->event_record(event.event, self.stream));
           })
      .def("wait",
           [](PyStream& self, EventHandle& event) {
             self.device->driver.check(self.device->driver->stream_wait_event(self.stream, event.event));
           })
      .def("synchronize", &PyStream::synchronize);
}

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // objects that live until the interpreter ends are no leak
  bind_error(m);
  bind_device(m);
  bind_streams(m);
  bind_page_pool(m);
  bind_profiler(m);
  bind_timing(m);
}
