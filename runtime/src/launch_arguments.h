// The arguments of a launch as Python gives them to `Stream.launch`, for what runs a program beside a driver:
// the timing model and the profiler. They read and write the buffers through the host.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.h"

namespace opennpu {

// An int is a scalar, a tuple (buffer, offset, bytes) a buffer, which must outlive the launch.
struct LaunchArguments {
  // Throws Error when they are not what the program takes.
  LaunchArguments(const Program& program, nanobind::sequence args);

  std::byte* base = nullptr;  // host address of chip address 0
  std::vector<Hbm::Range> ranges;
  std::vector<int64_t> values;
};

}  // namespace opennpu
