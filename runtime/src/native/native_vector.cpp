// The vector instructions on f32 and bf16. Dtypes alone decide whether a kernel runs or the reference engine,
// which computes some functions to other last bits: strides, which follow from the shape of a batch, must
// not.
#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "bounds.h"
#include "native_engine.h"

namespace opennpu::native {
namespace {

bool is_float(int64_t dtype) {
  return dtype == int64_t(isa::Dtype::F32) || dtype == int64_t(isa::Dtype::Bf16);
}

bool are_float(std::initializer_list<const isa::Tile*> tiles) {
  return std::all_of(tiles.begin(), tiles.end(), [](const isa::Tile* tile) { return is_float(tile->dtype); });
}

// Whether dimensions 1 and 2 of the tile walk memory as one dimension of d1·d2 would.
bool collapses(const isa::Tile& tile, int64_t d2) { return tile.s1 == d2 * tile.s2; }

// Calls run(i0, i1, j, n) for pieces of at most kChunk elements i0, i1, j … j+n-1 of an operation whose
// tiles are `tiles`; rows that lie side by side in all of them are one.
template <class Op, class Run>
void for_each_chunk(const Op& op, std::initializer_list<const isa::Tile*> tiles, Run run) {
  bool flat = true;
  for (const isa::Tile* tile : tiles) flat = flat && collapses(*tile, op.d2);
  const int64_t rows = flat ? 1 : op.d1, columns = flat ? op.d1 * op.d2 : op.d2;
  for (int64_t i0 = 0; i0 < op.d0; ++i0)
    for (int64_t i1 = 0; i1 < rows; ++i1)
      for (int64_t j = 0; j < columns; j += kChunk)
        run(i0, i1, j, columns - j < kChunk ? columns - j : kChunk);
}

int64_t offset(const isa::Tile& tile, int64_t i0, int64_t i1, int64_t i2) {
  return i0 * tile.s0 + i1 * tile.s1 + i2 * tile.s2;
}

// As `first_extreme` of the reference engine; greatest: of the row, NaN if one of them is.
int64_t first_greatest(const float* row, int64_t n, float greatest) {
  const auto found = [&](float x) { return greatest != greatest ? x != x : x == greatest; };
  constexpr int64_t kBlock = 64;
  int64_t begin = 0;
  for (; begin + kBlock <= n; begin += kBlock) {
    bool here = false;
    for (int64_t i = 0; i < kBlock; ++i) here |= found(row[begin + i]);
    if (here) break;
  }
  return std::find_if(row + begin, row + n, found) - row;
}

}  // namespace

void NativeEngine::read(const std::byte* from, int64_t dtype, int64_t stride, int64_t n, float* to) const {
  const int64_t size = dtype_size(dtype);
  if (stride == 0 && n > 1) {
    read(from, dtype, size, 1, to);
    std::fill(to + 1, to + n, to[0]);
  } else if (stride != size && n > 1) {
    for (int64_t i = 0; i < n; ++i) read(from + i * stride, dtype, size, 1, to + i);
  } else if (dtype == int64_t(isa::Dtype::F32)) {
    std::memmove(to, from, n * size);
  } else {
    kernels_.widen(reinterpret_cast<const uint16_t*>(from), to, n);
  }
}

void NativeEngine::write(const float* from, std::byte* to, int64_t dtype, int64_t stride, int64_t n) const {
  const int64_t size = dtype_size(dtype);
  if (stride != size && n > 1)
    for (int64_t i = 0; i < n; ++i) write(from + i, to + i * stride, dtype, size, 1);
  else if (dtype == int64_t(isa::Dtype::F32))
    std::memcpy(to, from, n * size);
  else
    kernels_.narrow(from, reinterpret_cast<uint16_t*>(to), n);
}

bool NativeEngine::unary(Core& core, const isa::VUnary& op) const {
  const Kernels::Unary run = unary_[op.op];
  if (!run || !are_float({&op.dst, &op.a})) return false;
  std::byte* dst = check_tile(core, op.dst, op.d0, op.d1, op.d2);
  const std::byte* a = check_tile(core, op.a, op.d0, op.d1, op.d2);
  if (!dst) return true;
  alignas(64) float x[kChunk];
  for_each_chunk(op, {&op.dst, &op.a}, [&](int64_t i0, int64_t i1, int64_t j, int64_t n) {
    read(a + offset(op.a, i0, i1, j), op.a.dtype, op.a.s2, n, x);
    run(x, n);
    write(x, dst + offset(op.dst, i0, i1, j), op.dst.dtype, op.dst.s2, n);
  });
  return true;
}

bool NativeEngine::binary(Core& core, const isa::VBinary& op) const {
  const Kernels::Binary run = binary_[op.op];
  if (!run || !are_float({&op.dst, &op.a, &op.b})) return false;
  std::byte* dst = check_tile(core, op.dst, op.d0, op.d1, op.d2);
  const std::byte* a = check_tile(core, op.a, op.d0, op.d1, op.d2);
  const std::byte* b = check_tile(core, op.b, op.d0, op.d1, op.d2);
  if (!dst) return true;
  alignas(64) float x[kChunk], y[kChunk];
  for_each_chunk(op, {&op.dst, &op.a, &op.b}, [&](int64_t i0, int64_t i1, int64_t j, int64_t n) {
    read(a + offset(op.a, i0, i1, j), op.a.dtype, op.a.s2, n, x);
    read(b + offset(op.b, i0, i1, j), op.b.dtype, op.b.s2, n, y);
    run(x, y, n);
    write(x, dst + offset(op.dst, i0, i1, j), op.dst.dtype, op.dst.s2, n);
  });
  return true;
}

bool NativeEngine::fill(Core& core, const isa::VFill& op) const {
  if (op.is_float == 0 || !is_float(op.dst.dtype)) return false;
  std::byte* dst = check_tile(core, op.dst, op.d0, op.d1, op.d2);
  if (!dst) return true;
  const uint32_t bits = uint32_t(op.value);
  alignas(64) float x[kChunk];
  read(reinterpret_cast<const std::byte*>(&bits), int64_t(isa::Dtype::F32), 0, kChunk, x);
  for_each_chunk(op, {&op.dst}, [&](int64_t i0, int64_t i1, int64_t j, int64_t n) {
    write(x, dst + offset(op.dst, i0, i1, j), op.dst.dtype, op.dst.s2, n);
  });
  return true;
}

bool NativeEngine::select(Core& core, const isa::VSelect& op) const {
  if (op.cond.dtype != int64_t(isa::Dtype::Bool) || !are_float({&op.dst, &op.a, &op.b})) return false;
  std::byte* dst = check_tile(core, op.dst, op.d0, op.d1, op.d2);
  const std::byte* cond = check_tile(core, op.cond, op.d0, op.d1, op.d2);
  const std::byte* a = check_tile(core, op.a, op.d0, op.d1, op.d2);
  const std::byte* b = check_tile(core, op.b, op.d0, op.d1, op.d2);
  if (!dst) return true;
  alignas(64) float x[kChunk], y[kChunk];
  for_each_chunk(op, {&op.dst, &op.cond, &op.a, &op.b}, [&](int64_t i0, int64_t i1, int64_t j, int64_t n) {
    read(a + offset(op.a, i0, i1, j), op.a.dtype, op.a.s2, n, x);
    read(b + offset(op.b, i0, i1, j), op.b.dtype, op.b.s2, n, y);
    const std::byte* c = cond + offset(op.cond, i0, i1, j);
    for (int64_t i = 0; i < n; ++i) x[i] = c[i * op.cond.s2] != std::byte{0} ? x[i] : y[i];
    write(x, dst + offset(op.dst, i0, i1, j), op.dst.dtype, op.dst.s2, n);
  });
  return true;
}

bool NativeEngine::reduce(Core& core, const isa::VReduce& op) const {
  const auto kind = isa::Reduce(op.op);
  if (kind == isa::Reduce::Argmax) return argmax(core, op);
  const Kernels::Sum run = kind == isa::Reduce::Sum     ? kernels_.sum
                           : kind == isa::Reduce::Sumsq ? kernels_.sumsq
                           : kind == isa::Reduce::Max   ? kernels_.max
                                                        : nullptr;
  if (!run || op.d2 <= 0 || !are_float({&op.dst, &op.a})) return false;
  for_each_row(core, op, [&](const float* row, std::byte* dst) {
    const float result = run(row, op.d2);
    write(&result, dst, op.dst.dtype, op.dst.s2, 1);
  });
  return true;
}

bool NativeEngine::argmax(Core& core, const isa::VReduce& op) const {
  const bool known = op.dst.dtype == int64_t(isa::Dtype::I64) || op.dst.dtype == int64_t(isa::Dtype::I32);
  if (!known || op.d2 <= 0 || !is_float(op.a.dtype)) return false;
  for_each_row(core, op, [&](const float* row, std::byte* dst) {
    const int64_t index = first_greatest(row, op.d2, kernels_.max(row, op.d2));
    std::memcpy(dst, &index, dtype_size(op.dst.dtype));  // little-endian
  });
  return true;
}

// Calls put with each row of a, as f32, and where its result goes.
template <typename Put>
void NativeEngine::for_each_row(Core& core, const isa::VReduce& op, const Put& put) const {
  std::byte* dst = check_tile(core, op.dst, op.d0, op.d1, 1);
  const std::byte* a = check_tile(core, op.a, op.d0, op.d1, op.d2);
  if (!dst) return;
  std::vector<float>& row = static_cast<State&>(*core.state).row;
  row.resize(op.d2);
  for (int64_t i0 = 0; i0 < op.d0; ++i0)
    for (int64_t i1 = 0; i1 < op.d1; ++i1) {
      read(a + offset(op.a, i0, i1, 0), op.a.dtype, op.a.s2, op.d2, row.data());
      put(row.data(), dst + offset(op.dst, i0, i1, 0));
    }
}

bool NativeEngine::softmax(Core& core, const isa::VSoftmaxStep& op) const {
  const bool from_f32 = op.s.dtype == int64_t(isa::Dtype::F32);
  if (op.cap != 0 || op.group < 1 || op.n <= 0 || !from_f32 || !is_float(op.p.dtype)) return false;
  std::byte* p = check_tile(core, op.p, 1, op.rows, op.n);
  const std::byte* s = check_tile(core, op.s, 1, op.rows, op.n);
  float* vectors[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t address = i == 0 ? op.m : i == 1 ? op.l : op.alpha;
    const Extent extent = strided_extent(address, 4, {{op.rows, 4}});
    if (address % 4) return false;
    vectors[i] = reinterpret_cast<float*>(check_memory(core, isa::Space::Spm, extent) + address);
  }
  if (!p) return true;
  std::vector<float>& row = static_cast<State&>(*core.state).row;
  row.resize(op.n + 15);
  const uint32_t scale_bits = uint32_t(op.scale);
  float scale;
  std::memcpy(&scale, &scale_bits, 4);
  auto clip = [&](__int128 x) { return int64_t(x < 0 ? 0 : x > op.n ? op.n : x); };
  for (int64_t r = 0; r < op.rows; ++r) {
    const __int128 q = __int128(op.pos) + r / op.group - op.key;  // the row's position as a column
    const int64_t end = op.causal ? clip(q + 1) : op.n;
    const int64_t begin = op.window ? clip(q - op.window + 1) : 0;
    read(s + r * op.s.s1, op.s.dtype, op.s.s2, op.n, row.data());
    kernels_.softmax_row({row.data(), begin < end ? begin : end, end, op.n, scale, vectors[0] + r,
                          vectors[1] + r, vectors[2] + r});
    write(row.data(), p + r * op.p.s1, op.p.dtype, op.p.s2, op.n);
  }
  return true;
}

}  // namespace opennpu::native
