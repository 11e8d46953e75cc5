// time_launch of the module opennpu.runtime._core: the timing model on the arguments of a launch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "bindings.h"
#include "launch_arguments.h"
#include "timing/timing_model.h"

namespace nb = nanobind;

namespace opennpu {

namespace {

constexpr const char* kQueueNames[] = {"load", "store", "matrix", "vector"};
static_assert(std::size(kQueueNames) == timing::kQueues);

timing::Parameters parameters(nb::handle chip) {
  const nb::object timing = chip.attr("timing");
  timing::Parameters out{};
#define X(NAME) out.NAME = nb::cast<int64_t>(timing.attr(#NAME));
  ONPU_TIMING_PARAMETERS(X)
#undef X
  return out;
}

nb::dict queue_dict(const timing::QueueTimes& times) {
  constexpr const char* kStallNames[] = {
#define X(NAME) #NAME,
      ONPU_STALLS(X)
#undef X
  };
  nb::dict stalls;
  for (size_t i = 0; i < timing::kStalls; ++i) stalls[kStallNames[i]] = times.stalls[i];
  nb::dict out;
  out["busy"] = times.busy;
  out["hbm_contention"] = times.hbm_contention;
  out["bank_conflicts"] = times.bank_conflicts;
  out["stalls"] = stalls;
  return out;
}

nb::dict core_dict(const timing::CoreTimes& times) {
  nb::dict sequencer;
  sequencer["issue"] = times.sequencer.issue;
  sequencer["scalar_load"] = times.sequencer.scalar_load;
  sequencer["queue_full"] = times.sequencer.queue_full;
  sequencer["barrier"] = times.sequencer.barrier;
  nb::dict out;
  out["sequencer"] = sequencer;
  for (size_t q = 0; q < timing::kQueues; ++q) out[kQueueNames[q]] = queue_dict(times.queues[q]);
  return out;
}

nb::dict op_dict(const timing::OpTimes& times, const std::string& location) {
  nb::dict out;
  out["source"] =
      nb::steal(PyUnicode_DecodeUTF8(location.data(), static_cast<Py_ssize_t>(location.size()), "replace"));
  out["cycles"] = times.cycles;
  out["stretches"] = times.stretches;
  for (size_t q = 0; q < timing::kQueues; ++q) out[kQueueNames[q]] = queue_dict(times.queues[q]);
  out["hbm_bytes"] = times.hbm_bytes;
  out["shared_bytes"] = times.shared_bytes;
  out["macs"] = times.macs;
  out["row_macs"] = times.row_macs;
  return out;
}

// The members, all int64, one after the other.
template <typename T>
nb::bytes packed(const std::vector<T>& rows) {
  static_assert(sizeof(T) % sizeof(int64_t) == 0);
  return nb::bytes(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(T));
}

// None, or (cores, begin, end, most).
std::unique_ptr<timing::Recorder> recorder(nb::handle record) {
  if (record.is_none()) return nullptr;
  const auto [cores, begin, end, most] =
      nb::cast<std::tuple<std::vector<unsigned>, int64_t, int64_t, size_t>>(record);
  return std::make_unique<timing::Recorder>(timing::Recorder::Scope{cores, begin, end, most});
}

nb::dict report_dict(const timing::Report& report, const Program& program) {
  nb::list cores, ops;
  for (const timing::CoreTimes& core : report.cores) cores.append(core_dict(core));
  for (size_t i = 0; i < program.locations.size(); ++i) {
    ops.append(op_dict(report.ops[i], program.locations[i]));
  }
  nb::dict out;
  out["cycles"] = report.cycles;
  out["barriers"] = report.barriers;
  out["instructions"] = report.instructions;
  out["bytes_loaded"] = report.bytes_loaded;
  out["bytes_stored"] = report.bytes_stored;
  out["shared_bytes"] = report.shared_bytes;
  out["macs"] = report.macs;
  out["row_macs"] = report.row_macs;
  out["cores"] = cores;
  out["ops"] = ops;
  return out;
}

nb::object recording(const timing::Recorder* recorder) {
  if (recorder == nullptr) return nb::none();
  nb::dict out;
  out["slices"] = packed(recorder->slices());
  out["arrows"] = packed(recorder->arrows());
  out["stretches"] = packed(recorder->stretches());
  out["truncated"] = recorder->truncated();
  return out;
}

nb::tuple time_launch(nb::handle chip, nb::bytes image, nb::sequence args, nb::handle record) {
  const npu_chip_desc desc = chip_desc(chip);
  const timing::Parameters costs = parameters(chip);
  const Program program = parse_image({reinterpret_cast<const std::byte*>(image.data()), image.size()}, desc);
  const LaunchArguments arguments(program, args);
  const std::unique_ptr<timing::Recorder> seen = recorder(record);
  timing::Report report;
  {
    nb::gil_scoped_release release;
    const Hbm hbm(arguments.base, arguments.ranges);
    report = timing::time_launch(program, desc, costs, arguments.values, hbm, seen.get());
  }
  return nb::make_tuple(report_dict(report, program), recording(seen.get()));
}

}  // namespace

void bind_timing(nb::module_& m) {
  m.def("time_launch", &time_launch, nb::arg("chip"), nb::arg("image"), nb::arg("args"),
        nb::arg("record").none() = nb::none(),
        "What a launch would take on `chip`, a Chip with `timing`: timing/report.h as dictionaries; and with "
        "`record`, (cores, begin, end, most slices), what timing/recorder.h saw: rows of int64 as bytes.");
}

}  // namespace opennpu
