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

uint32_t read16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
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

void Stationary::load(const Core& core, const isa::MxLoad& op) {
  const npu_chip_desc& chip = core.chip;
  if (op.k < 0 || op.k > int64_t(chip.mx_k) || op.n < 0 || op.n > int64_t(chip.mx_n))
    throw Trap{"a stationary tile of " + std::to_string(op.k) + " × " + std::to_string(op.n) +
               " on a matrix unit of " + std::to_string(chip.mx_k) + " × " + std::to_string(chip.mx_n)};
  const Extent extent = source_extent(op, chip);
  const std::byte* spm = check_memory(core, isa::Space::Spm, extent);
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
  const bool same_pair = dtype_ == isa::Dtype::F32 || chip.pair == kPair;
  if (isa::Layout(op.layout) == isa::Layout::Packed && chip.strip == kStrip && same_pair) {
    strips_ = spm + op.src;
    strip_stride_ = op.stride;
    aliased_ = extent;
  } else {
    strip_stride_ = pack(spm + op.src, op, chip);
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

// Returns the stride of the strips it made. A pair of bf16, or an f32, is moved as a 32-bit word.
int64_t Stationary::pack(const std::byte* source, const isa::MxLoad& op, const npu_chip_desc& chip) {
  const int64_t size = dtype_size(op.dtype), pair = 4 / size, stride = ceil_div(k_, pair) * kStrip * 4;
  const auto layout = isa::Layout(op.layout);
  const int64_t whole = layout == isa::Layout::Packed ? 0 : k_ / pair * pair;
  for (int64_t first = 0; first < n_; first += kStrip) {
    std::byte* strip = own_.data() + first / kStrip * stride;
    const int64_t columns = n_ - first < kStrip ? n_ - first : kStrip;
    for (int64_t k = 0; k < whole; k += pair) {
      std::byte* out = strip + k / pair * kStrip * 4;
      const std::byte* in = source + element_offset(op, chip, k, first);
      if (layout == isa::Layout::Nk) {
        for (int64_t c = 0; c < columns; ++c) std::memcpy(out + c * 4, in + c * op.stride, 4);
      } else if (pair == 1) {
        std::memcpy(out, in, columns * 4);
      } else {
        for (int64_t c = 0; c < columns; ++c) {
          const uint32_t word = read16(in + c * 2) | read16(in + op.stride + c * 2) << 16;
          std::memcpy(out + c * 4, &word, 4);
        }
      }
    }
    for (int64_t k = whole; k < k_; ++k)
      for (int64_t c = 0; c < columns; ++c)
        std::memcpy(strip + ((k / pair * kStrip + c) * pair + k % pair) * size,
                    source + element_offset(op, chip, k, first + c), size);
  }
  return stride;
}

}  // namespace opennpu::native
