// mx_load, mx_mul: the weight-stationary matrix unit.
#include "element.h"
#include "instructions.h"

// The inner loop is compiled twice and chosen by the host: a fused multiply-add is exact by definition, so
// the instruction gives the bits that the library's fmaf gives, only sooner.
#if defined(__x86_64__) && defined(__gnu_linux__)
#define ONPU_FMA_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define ONPU_FMA_CLONES
#endif

namespace opennpu::reference {

namespace {

/// acc[j] += x·w[j], each with one rounding.
ONPU_FMA_CLONES void multiply_add_row(float* acc, float x, const float* w, int64_t n) {
  for (int64_t j = 0; j < n; ++j) acc[j] = __builtin_fmaf(x, w[j], acc[j]);
}

/// Byte offset of element (i, j) of the tile in scratchpad.
int64_t tile_offset(const npu_chip_desc& chip, const isa::MxLoad& op, int64_t i, int64_t j) {
  const int64_t size = dtype_size(op.dtype);
  switch (static_cast<isa::Layout>(op.layout)) {
    case isa::Layout::Kn:
      return i * op.stride + j * size;
    case isa::Layout::Nk:
      return j * op.stride + i * size;
    case isa::Layout::Packed:
      break;
  }
  const int64_t strip = chip.strip, pair = packed_pair(chip, op.dtype);
  return j / strip * op.stride + ((i / pair * strip + j % strip) * pair + i % pair) * size;
}

}  // namespace

void run(Core& core, const isa::MxLoad& op) {
  MatrixUnit& unit = matrix_unit(core);
  unit.shape = {op.k, op.n, op.dtype};
  unit.tile.resize(op.k * op.n);
  for (int64_t i = 0; i < op.k; ++i)
    for (int64_t j = 0; j < op.n; ++j)
      unit.tile[i * op.n + j] =
          load_float(op.dtype, core.memory.spm + op.src + tile_offset(core.chip, op, i, j));
}

void run(Core& core, const isa::MxMul& op) {
  const MatrixUnit& unit = matrix_unit(core);
  const auto [k, n, dtype] = unit.shape;
  if (n == 0) return;
  std::vector<float> sums(n);
  for (int64_t r = 0; r < op.rows; ++r) {
    std::byte* acc = core.memory.acc + op.dst + r * op.dst_stride;
    const std::byte* x = core.memory.spm + op.src + r * op.src_stride;
    for (int64_t j = 0; j < n; ++j) sums[j] = op.accumulate != 0 ? read<float>(acc + j * 4) : 0.0f;
    for (int64_t i = 0; i < k; ++i)
      multiply_add_row(sums.data(), load_float(dtype, x + i * dtype_size(dtype)), &unit.tile[i * n], n);
    for (int64_t j = 0; j < n; ++j) store(static_cast<int64_t>(isa::Dtype::F32), acc + j * 4, sums[j]);
  }
}

}  // namespace opennpu::reference
