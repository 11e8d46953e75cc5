// The timing model: the decoded program on the engines' sequencer, with no data but what s_ld reads.
#pragma once

#include <span>

#include "../engine.h"
#include "../program.h"
#include "parameters.h"
#include "recorder.h"
#include "report.h"

namespace opennpu::timing {

// Runs one launch of `program` and says when everything would have happened on the chip. The same on
// every host. `args` are values and buffer addresses; of the buffers in `hbm` only what s_ld reads is
// touched. `recorder` may be null. Throws Error (TRAP, TIMEOUT) as a launch does, but does not check
// addresses of the engines' operands.
Report time_launch(const Program& program, const npu_chip_desc& chip, const Parameters& parameters,
                   std::span<const int64_t> args, const Hbm& hbm, Recorder* recorder);

}  // namespace opennpu::timing
