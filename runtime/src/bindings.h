#pragma once

#include <nanobind/nanobind.h>

#include "opennpu/npu.h"

namespace opennpu {

// From a Chip of runtime/chip.py.
npu_chip_desc chip_desc(nanobind::handle chip);

void bind_page_pool(nanobind::module_& m);
void bind_profiler(nanobind::module_& m);
void bind_timing(nanobind::module_& m);

}  // namespace opennpu
