#include "launch_arguments.h"

#include <nanobind/stl/tuple.h>

#include <string>
#include <tuple>

#include "handles.h"

namespace nb = nanobind;

namespace opennpu {

LaunchArguments::LaunchArguments(const Program& program, nb::sequence args) {
  for (nb::handle arg : args) {
    const bool writable =
        values.size() < program.args.size() && program.args[values.size()] == ArgKind::Write;
    if (nb::isinstance<nb::tuple>(arg)) {
      const auto [object, offset, bytes] = nb::cast<std::tuple<nb::object, uint64_t, uint64_t>>(arg);
      const auto& buffer = nb::cast<const BufferHandle&>(object);
      if (offset > buffer.bytes || bytes > buffer.bytes - offset) {
        throw Error{NPU_ERROR_INVALID_ARGUMENT, "an argument reaches past the end of its buffer"};
      }
      base = buffer.host() - buffer.address;
      ranges.push_back({buffer.address + offset, bytes, writable});
      values.push_back(static_cast<int64_t>(buffer.address + offset));
    } else {
      values.push_back(nb::cast<int64_t>(arg));
    }
  }
  if (values.size() != program.args.size()) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, "the program takes " + std::to_string(program.args.size()) +
                                                " arguments, " + std::to_string(values.size()) +
                                                " were given"};
  }
}

}  // namespace opennpu
