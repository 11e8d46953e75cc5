// The module opennpu.runtime._torch: what torch.opennpu needs beside PyTorch's own interfaces.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <cmath>
#include <cstring>

#include "allocator.h"
#include "device.h"
#include "generator.h"
#include "hooks.h"
#include "pinned.h"
#include "streams.h"

namespace opennpu::torch_device {

void bind_operators(const pybind11::handle& module);  // bind_operators.cpp
void bind_programs(const pybind11::handle& module);   // bind_programs.cpp

namespace {

namespace py = pybind11;
using py::literals::operator""_a;

npu_chip_desc chip_desc(const py::handle& chip) {
  npu_chip_desc desc{};
  const auto name = chip.attr("name").cast<std::string>();
  std::strncpy(desc.name, name.c_str(), sizeof desc.name - 1);
  const auto get = [&](const char* key) { return chip.attr(key).cast<uint64_t>(); };
  desc.fingerprint = get("fingerprint");
  desc.cores = static_cast<uint32_t>(get("cores"));
  desc.align_bytes = static_cast<uint32_t>(get("align_bytes"));
  desc.clock_hz = get("clock_mhz") * 1000000;
  desc.spm_bytes = get("spm_bytes");
  desc.acc_bytes = get("acc_bytes");
  desc.hbm_bytes = get("hbm_bytes");
  desc.mx_k = static_cast<uint32_t>(get("mx_k"));
  desc.mx_n = static_cast<uint32_t>(get("mx_n"));
  desc.strip = static_cast<uint32_t>(get("strip"));
  desc.pair = static_cast<uint32_t>(get("pair"));
  desc.share_cores = static_cast<uint32_t>(get("share_cores"));
  return desc;
}

// From the Settings of runtime/settings.py.
Settings settings_of(const py::handle& python) {
  Settings settings;
  settings.chip = chip_desc(python.attr("load_chip")());
  settings.engine = python.attr("engine").cast<std::string>();
  settings.driver = python.attr("driver").cast<std::string>();
  settings.hbm_bytes = python.attr("hbm_bytes").cast<uint64_t>();
  settings.threads = python.attr("threads").cast<uint32_t>();
  settings.launch_limit_ms =
      static_cast<uint64_t>(std::ceil(python.attr("launch_limit").cast<double>() * 1000));
  settings.devices = python.attr("devices").cast<DeviceIndex>();
  settings.host_visible = python.attr("host_visible").cast<bool>();
  settings.strict = python.attr("strict").cast<bool>();
  return settings;
}

// The driver's table and the open device, both borrowed for ever: for other users of the same chip.
py::tuple handles(DeviceIndex index) {
  const Chip& open = chip(index);
  return py::make_tuple(py::capsule(open.driver, "npu_driver"), py::capsule(open.device, "npu_device"));
}

py::dict counters(DeviceIndex index) {
  const Chip& open = chip(index);
  npu_counters c;
  check(open.driver->device_counters(open.device, &c));
  py::dict out;
  out["launches"] = c.launches;
  out["instructions"] = c.instructions;
  out["bytes_loaded"] = c.bytes_loaded;
  out["bytes_stored"] = c.bytes_stored;
  out["macs"] = c.macs;
  out["busy_ns"] = c.busy_ns;
  return out;
}

// As torch.cuda.memory_snapshot has it.
py::list memory_segments(DeviceIndex index) {
  py::list segments;
  for (const auto& segment : memory_snapshot(index)) {
    py::list blocks;
    size_t address = segment.address;
    for (const auto& block : segment.blocks) {
      const char* state = block.allocated ? "active_allocated" : "active_pending_free";
      blocks.append(py::dict("address"_a = address, "size"_a = block.size,
                             "requested_size"_a = block.requested_size,
                             "state"_a = block.active ? state : "inactive"));
      address += block.size;
    }
    segments.append(py::dict(
        "device"_a = segment.device, "address"_a = segment.address, "total_size"_a = segment.total_size,
        "allocated_size"_a = segment.allocated_size, "active_size"_a = segment.active_size,
        "requested_size"_a = segment.requested_size, "stream"_a = reinterpret_cast<intptr_t>(segment.stream),
        "segment_type"_a = segment.is_large ? "large" : "small", "blocks"_a = blocks));
  }
  return segments;
}

}  // namespace

PYBIND11_MODULE(_torch, m) {
  py::register_local_exception_translator([](std::exception_ptr exception) {
    try {
      std::rethrow_exception(exception);
    } catch (const c10::Error&) {  // to PyTorch's own classes: torch.AcceleratorError, torch.OutOfMemoryError
      torch::translate_exception_to_python(exception);
    }
  });
  m.def("set_up", [](py::object read_settings) {
    // Never freed: it may be asked for after the interpreter's end.
    auto* source = new py::object(std::move(read_settings));
    set_settings_source([source] {
      const py::gil_scoped_acquire gil;
      return settings_of((*source)());
    });
    register_hooks();
  });
  m.def("device_count", &device_count);
  m.def("current_device", &current_device);
  m.def("set_device", &set_current_device);
  m.def("is_open", &is_open);
  m.def("in_bad_fork", &in_bad_fork);
  m.def("synchronize", &synchronize_device);
  m.def("handles", &handles);
  bind_operators(m);
  bind_programs(m);
  m.def("counters", &counters);
  m.def("reset_counters", [](DeviceIndex index) {
    const Chip& open = chip(index);
    check(open.driver->device_reset_counters(open.device));
  });
  m.def("default_generator", &default_generator);
  m.def("limit_memory", &limit_memory);
  m.def("memory_segments", &memory_segments);
  m.def("empty_host_cache", &empty_pinned_cache);
}

}  // namespace opennpu::torch_device
