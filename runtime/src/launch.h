// One run of a program on all cores.
#pragma once

#include <span>

#include "sequencer.h"
#include "workers.h"

namespace opennpu {

struct LaunchResult {
  npu_status status = NPU_OK;
  std::string message;
  npu_counters counters{};  // of this launch; busy_ns is not set
};

// Runs the launch on the workers, each of which owns a fixed set of cores; what is computed and
// which error is reported do not depend on their number. `memories` has one entry a core.
LaunchResult run_launch(const LaunchContext& launch, std::span<const CoreMemory> memories, Workers& workers);

}  // namespace opennpu
