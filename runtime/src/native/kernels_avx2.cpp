#define ONPU_PATH avx2
#include "kernels_impl.h"

namespace opennpu::native {
const Kernels kAvx2 = avx2::table("avx2");
}
