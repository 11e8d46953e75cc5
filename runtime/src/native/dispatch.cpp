#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace opennpu::native {
namespace {

struct Path {
  const Kernels& kernels;
  bool supported;
};

}  // namespace

const Kernels& select_kernels() {
  const Path paths[] = {
  // the best first
#ifdef ONPU_HAVE_X86
      {kAvx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {kPortable, true},
  };
  const char* wanted = std::getenv("OPENNPU_CPU_PATH");
  for (const Path& path : paths) {
    if (wanted ? std::string(wanted) != path.kernels.path : !path.supported) continue;
    if (!path.supported)
      throw std::invalid_argument("this CPU cannot run OPENNPU_CPU_PATH=" + std::string(wanted));
    return path.kernels;
  }
  throw std::invalid_argument("OPENNPU_CPU_PATH=" + std::string(wanted) +
                              " is unknown; use portable or avx2");
}

}  // namespace opennpu::native
