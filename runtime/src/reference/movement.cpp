// v_transpose, v_gather: elements change places within a tile.
#include <string>

#include "element.h"
#include "instructions.h"

namespace opennpu::reference {

void run(Core& core, const isa::VTranspose& op) {
  const int64_t dtype = op.a.dtype;
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    cast(dtype, element(core, op.dst, i0, i2, i1), dtype, element(core, op.a, i0, i1, i2));
  });
}

void run(Core& core, const isa::VGather& op) {
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    const int64_t index = load_integer(op.index.dtype, element(core, op.index, i0, i1, i2));
    if (index < 0 || index >= op.limit) {  // all were checked before the first element was written
      throw Trap{"operand dst overlaps operand index and has changed an index to " + std::to_string(index)};
    }
    cast(op.dst.dtype, element(core, op.dst, i0, i1, i2), op.a.dtype, element(core, op.a, i0, i1, index));
  });
}

}  // namespace opennpu::reference
