#define ONPU_PATH portable
#include "kernels_impl.h"

namespace opennpu::native {
const Kernels kPortable = portable::table("portable");
}
