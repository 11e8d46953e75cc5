#pragma once

#include <nanobind/nanobind.h>

namespace opennpu {

void bind_page_pool(nanobind::module_& m);

}  // namespace opennpu
