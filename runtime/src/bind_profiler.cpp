// Profiler of the module opennpu.runtime._core: launches on the virtual chip with a look at the host's clock.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <chrono>
#include <memory>
#include <string>

#include "bindings.h"
#include "device.h"
#include "launch.h"
#include "launch_arguments.h"
#include "profiler.h"

namespace nb = nanobind;

namespace opennpu {

namespace {

// The cores of a chip of its own, which works on the memory of the arguments' device.
class ProfiledProgram {
 public:
  ProfiledProgram(nb::handle chip, nb::bytes image, uint32_t threads)
      : chip_(chip_desc(chip)),
        program_(parse_image({reinterpret_cast<const std::byte*>(image.data()), image.size()}, chip_)),
        engine_(make_native_engine(chip_)),
        memories_(chip_),
        cores_(chip_, *engine_, hbm_, memories_.cores(), threads),
        profiler_(program_.locations.size()) {}

  // One launch; what the device has queued must have run.
  void run(nb::sequence args) {
    const LaunchArguments arguments(program_, args);
    nb::gil_scoped_release release;
    hbm_ = Hbm(arguments.base, arguments.ranges);
    const auto start = std::chrono::steady_clock::now();
    const LaunchResult result = cores_.run({program_, arguments.values, &profiler_, ~uint64_t{0}});
    ns_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
    if (result.status != NPU_OK) throw Error{result.status, result.message};
    ++launches_;
  }

  // Everything since the last call.
  nb::dict take() {
    constexpr const char* kUnitNames[] = {"load", "store", "matrix", "vector", "sequencer"};
    static_assert(std::size(kUnitNames) == OpProfile::kUnits);
    nb::list ops;
    for (size_t i = 0; i < program_.locations.size(); ++i) {
      const OpProfile& op = profiler_.ops()[i];
      const std::string& location = program_.locations[i];
      nb::dict row, ns;
      for (size_t unit = 0; unit < OpProfile::kUnits; ++unit) ns[kUnitNames[unit]] = op.ns[unit];
      row["source"] = nb::steal(
          PyUnicode_DecodeUTF8(location.data(), static_cast<Py_ssize_t>(location.size()), "replace"));
      row["ns"] = ns;
      row["instructions"] = op.instructions;
      row["hbm_bytes"] = op.bytes_loaded + op.bytes_stored;
      row["macs"] = op.macs;
      ops.append(row);
    }
    nb::dict out;
    out["launches"] = launches_;
    out["ns"] = ns_;
    out["ops"] = ops;
    profiler_.reset();
    launches_ = ns_ = 0;
    return out;
  }

 private:
  const npu_chip_desc chip_;
  const Program program_;
  const std::unique_ptr<Engine> engine_;
  const CoreMemories memories_;
  Hbm hbm_{nullptr};
  Cores cores_;
  Profiler profiler_;
  int64_t launches_ = 0, ns_ = 0;
};

}  // namespace

void bind_profiler(nb::module_& m) {
  nb::class_<ProfiledProgram>(m, "ProfiledProgram")
      .def(nb::init<nb::handle, nb::bytes, uint32_t>(), nb::arg("chip"), nb::arg("image"), nb::arg("threads"),
           "A program on the native engine under the profiler, on the memory of an open device.")
      .def("run", &ProfiledProgram::run, nb::arg("args"),
           "One launch, at once; args as of Stream.launch. The streams must have been synchronised.")
      .def("take", &ProfiledProgram::take,
           "{launches, ns, ops: [{source, ns: {unit: …}, instructions, hbm_bytes, macs}]} since the last "
           "call.");
}

}  // namespace opennpu
