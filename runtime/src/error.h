// A failure that the C interface reports as status and message.
#pragma once

#include <string>

#include "opennpu/npu.h"

namespace opennpu {

struct Error {
  npu_status status;
  std::string message;
};

}  // namespace opennpu
