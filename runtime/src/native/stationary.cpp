#include "stationary.h"

#include <cstring>
#include <string>

#include "kernels.h"

namespace opennpu::native {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The extent of a tile in its layout.
Extent source_extent(const isa::MxLoad& op, const npu_chip_desc& chip) {
  const int64_t size = dtype_size(op.dtype);
  const int64_t pair = op.dtype == int64_t(isa::Dtype::Bf16) ? chip.pair : 1;
  if (op.k == 0 || op.n == 0) return {};
  switch (isa::Layout(op.layout)) {
    case isa::Layout::Kn:
      return strided_extent(op.src, op.n * size, {{op.k, op.stride}});
    case isa::Layout::Nk:
      return strided_extent(op.src, op.k * size, {{op.n, op.stride}});
    default:
      return strided_extent(op.src, ceil_div(op.k, pair) * chip.strip * pair * size,
                            {{ceil_div(op.n, chip.strip), op.stride}});
  }
}

// Byte offset of element (k, n) in its layout.
int64_t element_offset(const isa::MxLoad& op, const npu_chip_desc& chip, int64_t k, int64_t n) {
  const int64_t size = dtype_size(op.dtype);
  switch (isa::Layout(op.layout)) {
    case isa::Layout::Kn:
      return k * op.stride + n * size;
    case isa::Layout::Nk:
      return n * op.stride + k * size;
    default: {
      const int64_t pair = op.dtype == int64_t(isa::Dtype::Bf16) ? chip.pair : 1;
      return (n / chip.strip) * op.stride +
             ((k / pair * chip.strip + n % chip.strip) * pair + k % pair) * size;
    }
  }
}

// ---- whole strips; each returns how much of K it has packed

using Words = uint32_t __attribute__((vector_size(16)));

Words load(const std::byte* p) {
  Words words;
  std::memcpy(&words, p, sizeof words);
  return words;
}

// Rows of K by 32-bit words (an f32, a pair of bf16), 4 × 4 of them transposed at a time.
int64_t turn(std::byte* strip, const std::byte* in, int64_t stride, int64_t words) {
  int64_t k = 0;
  for (; k + 4 <= words; k += 4)
    for (int64_t c = 0; c < kStrip; c += 4) {
      const std::byte* block = in + c * stride + k * 4;
      const Words r0 = load(block), r1 = load(block + stride);
      const Words r2 = load(block + 2 * stride), r3 = load(block + 3 * stride);
      const Words low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
      const Words low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
      const Words high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
      const Words high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      const Words columns[] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                               __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                               __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                               __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int64_t i = 0; i < 4; ++i)
        std::memcpy(strip + ((k + i) * kStrip + c) * 4, &columns[i], sizeof(Words));
    }
  return k;
}

// Two rows of bf16 as pairs.
int64_t interleave(std::byte* strip, const std::byte* in, int64_t stride, int64_t rows) {
  int64_t k = 0;
  for (; k + kPair <= rows; k += kPair) {
    uint16_t even[kStrip], odd[kStrip], pairs[kStrip * kPair];
    std::memcpy(even, in + k * stride, sizeof even);
    std::memcpy(odd, in + (k + 1) * stride, sizeof odd);
    for (int c = 0; c < kStrip; ++c) {
      pairs[2 * c] = even[c];
      pairs[2 * c + 1] = odd[c];
    }
    std::memcpy(strip + k * kStrip * 2, pairs, sizeof pairs);
  }
  return k;
}

// Rows of f32 as they are.
int64_t copy_rows(std::byte* strip, const std::byte* in, int64_t stride, int64_t rows) {
  for (int64_t k = 0; k < rows; ++k) std::memcpy(strip + k * kStrip * 4, in + k * stride, kStrip * 4);
  return rows;
}

}  // namespace

Stationary::Stationary(const npu_chip_desc& chip)
    : own_(ceil_div(chip.mx_n, kStrip) * kStrip * (ceil_div(chip.mx_k, kPair) * kPair) * 4) {}

void Stationary::reset() {
  strips_ = own_.data();
  strip_stride_ = k_ = n_ = 0;
  dtype_ = isa::Dtype::F32;
  aliased_ = {};
}

void Stationary::load(const Core& core, const isa::MxLoad& op, Pending& pending) {
  const npu_chip_desc& chip = core.chip;
  if (op.k < 0 || op.k > int64_t(chip.mx_k) || op.n < 0 || op.n > int64_t(chip.mx_n))
    throw Trap{"a stationary tile of " + std::to_string(op.k) + " × " + std::to_string(op.n) +
               " on a matrix unit of " + std::to_string(chip.mx_k) + " × " + std::to_string(chip.mx_n)};
  const Extent extent = source_extent(op, chip);
  std::byte* spm = check_memory(core, isa::Space::Spm, extent);
  k_ = op.k;
  n_ = op.n;
  dtype_ = isa::Dtype(op.dtype);
  if (extent.empty()) {  // src may be anything then
    strips_ = own_.data();
    strip_stride_ = 0;
    aliased_ = {};
    return;
  }
  check_aligned(op.src | op.stride, op.dtype);
  const std::byte* constant = pending.find(extent);
  if (!constant) pending.before_read(extent, spm);
  const std::byte* source = constant ? constant + (op.src - extent.begin) : spm + op.src;
  const bool same_pair = dtype_ == isa::Dtype::F32 || chip.pair == kPair;
  if (isa::Layout(op.layout) == isa::Layout::Packed && chip.strip == kStrip && same_pair) {
    strips_ = source;
    strip_stride_ = op.stride;
    aliased_ = constant ? Extent{} : extent;
  } else {
    strip_stride_ = pack(source, op, chip);
    strips_ = own_.data();
    aliased_ = {};
  }
}

void Stationary::before_write(const Extent& extent) {
  if (aliased_.begin >= extent.end || extent.begin >= aliased_.end) return;
  const int64_t pair = dtype_ == isa::Dtype::Bf16 ? kPair : 1;
  const int64_t bytes = ceil_div(k_, pair) * kStrip * pair * dtype_size(int64_t(dtype_));
  for (int64_t s = 0; s < ceil_div(n_, kStrip); ++s)
    std::memcpy(own_.data() + s * bytes, strips_ + s * strip_stride_, bytes);
  strips_ = own_.data();
  strip_stride_ = bytes;
  aliased_ = {};
}

// Returns the stride of the strips it made. A whole strip goes the fast way as far as it leads.
int64_t Stationary::pack(const std::byte* source, const isa::MxLoad& op, const npu_chip_desc& chip) {
  const int64_t size = dtype_size(op.dtype), pair = 4 / size, stride = ceil_div(k_, pair) * kStrip * 4;
  for (int64_t first = 0; first < n_; first += kStrip) {
    std::byte* strip = own_.data() + first / kStrip * stride;
    const int64_t columns = n_ - first < kStrip ? n_ - first : kStrip;
    const std::byte* in = source + element_offset(op, chip, 0, first);
    int64_t k = 0;
    if (columns == kStrip && isa::Layout(op.layout) == isa::Layout::Nk)
      k = turn(strip, in, op.stride, k_ / pair) * pair;
    else if (columns == kStrip && isa::Layout(op.layout) == isa::Layout::Kn)
      k = pair == kPair ? interleave(strip, in, op.stride, k_) : copy_rows(strip, in, op.stride, k_);
    for (; k < k_; ++k)
      for (int64_t c = 0; c < columns; ++c)
        std::memcpy(strip + ((k / pair * kStrip + c) * pair + k % pair) * size,
                    source + element_offset(op, chip, k, first + c), size);
  }
  return stride;
}

}  // namespace opennpu::native
