// mx_load, mx_mul: the weight-stationary matrix unit.
#include "element.h"
#include "instructions.h"

// The inner loop is compiled twice and chosen by the host: a fused multiply-add is exact by definition, so
// the instruction gives the bits that the library's fmaf gives, only sooner. (A program built
// with ThreadSanitizer does not get as far as choosing.)
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
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

/// Where element (i, j) of the tile lies in scratchpad: byte row(i) + column(j), whatever the layout.
struct TileMap {
  const isa::MxLoad& op;
  int64_t strip, pair, size;

  TileMap(const npu_chip_desc& chip, const isa::MxLoad& op)
      : op(op), strip(chip.strip), pair(packed_pair(chip, op.dtype)), size(dtype_size(op.dtype)) {}

  int64_t row(int64_t i) const {
    switch (static_cast<isa::Layout>(op.layout)) {
      case isa::Layout::Kn:
        return op.src + i * op.stride;
      case isa::Layout::Nk:
        return op.src + i * size;
      default:
        return op.src + (i / pair * strip * pair + i % pair) * size;
    }
  }

  int64_t column(int64_t j) const {
    switch (static_cast<isa::Layout>(op.layout)) {
      case isa::Layout::Kn:
        return j * size;
      case isa::Layout::Nk:
        return j * op.stride;
      default:
        return j / strip * op.stride + j % strip * pair * size;
    }
  }
};

}  // namespace

void run(Core& core, const isa::MxLoad& op) {
  MatrixUnit& unit = matrix_unit(core);
  unit.shape = {op.k, op.n, op.dtype};
  unit.tile.resize(op.k * op.n);
  if (op.n == 0) return;  // src may be anything then
  const TileMap map(core.chip, op);
  std::vector<int64_t> columns(op.n);
  for (int64_t j = 0; j < op.n; ++j) columns[j] = map.column(j);
  for (int64_t i = 0; i < op.k; ++i) {
    const std::byte* row = core.memory.spm + map.row(i);
    for (int64_t j = 0; j < op.n; ++j) unit.tile[i * op.n + j] = load_float(op.dtype, row + columns[j]);
  }
}

void run(Core& core, const isa::MxMul& op) {
  const MatrixUnit& unit = matrix_unit(core);
  const auto [k, n, dtype] = unit.shape;
  if (n == 0) return;
  std::vector<float> sums(n);
  for (int64_t r = 0; r < op.rows; ++r) {
    std::byte* acc = core.memory.acc + op.dst + r * op.dst_stride;
    const std::byte* x = k == 0 ? nullptr : core.memory.spm + op.src + r * op.src_stride;
    for (int64_t j = 0; j < n; ++j) sums[j] = op.accumulate != 0 ? read<float>(acc + j * 4) : 0.0f;
    for (int64_t i = 0; i < k; ++i)
      multiply_add_row(sums.data(), load_float(dtype, x + i * dtype_size(dtype)), &unit.tile[i * n], n);
    for (int64_t j = 0; j < n; ++j) store(static_cast<int64_t>(isa::Dtype::F32), acc + j * 4, sums[j]);
  }
}

}  // namespace opennpu::reference
