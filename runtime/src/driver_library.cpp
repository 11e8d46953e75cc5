#include "driver_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

namespace opennpu {

namespace {

// All functions, which lie behind each other from `last_error` on.
bool is_complete(const npu_driver& table) {
  constexpr size_t kFirst = offsetof(npu_driver, last_error);
  std::array<void*, (sizeof(npu_driver) - kFirst) / sizeof(void*)> functions;
  std::memcpy(functions.data(), reinterpret_cast<const char*>(&table) + kFirst, sizeof functions);
  return std::find(functions.begin(), functions.end(), nullptr) == functions.end();
}

const npu_driver* table_of(const std::string& path) {
  if (path.empty()) return npu_get_driver(NPU_DRIVER_VERSION);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error{NPU_ERROR_UNSUPPORTED, std::string("cannot load the driver: ") + dlerror()};
  }
  const auto get = reinterpret_cast<npu_get_driver_fn>(dlsym(library, "npu_get_driver"));
  if (get == nullptr)
    throw Error{NPU_ERROR_UNSUPPORTED, path + " is no driver: it does not export npu_get_driver"};
  const npu_driver* table = get(NPU_DRIVER_VERSION);
  if (table == nullptr || table->version != NPU_DRIVER_VERSION) {
    throw Error{NPU_ERROR_UNSUPPORTED, path + " does not implement version " +
                                           std::to_string(NPU_DRIVER_VERSION) + " of the driver interface"};
  }
  if (!is_complete(*table)) {
    throw Error{NPU_ERROR_UNSUPPORTED, path + " lacks a function of the driver interface"};
  }
  return table;
}

}  // namespace

DriverLibrary::DriverLibrary(const std::string& path) : table_(table_of(path)) {}

void DriverLibrary::check(npu_status status) const {
  if (status != NPU_OK) throw Error{status, table_->last_error()};
}

}  // namespace opennpu
