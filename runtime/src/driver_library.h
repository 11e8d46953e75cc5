// A driver by its function table: the virtual chip of this library, or a vendor's shared library.
#pragma once

#include <memory>
#include <string>

#include "error.h"

namespace opennpu {

class DriverLibrary {
 public:
  // An empty path means the virtual chip. Throws Error. A library stays loaded for ever.
  explicit DriverLibrary(const std::string& path);
  explicit DriverLibrary(const npu_driver* table) : table_(table) {}

  const npu_driver* operator->() const { return table_; }

  // Throws Error with the driver's message unless `status` is NPU_OK.
  void check(npu_status status) const;

 private:
  const npu_driver* table_;
};

}  // namespace opennpu
