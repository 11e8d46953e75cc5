#include "stationary.h"

#include <algorithm>
#include <cstring>
#include <string>

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

// ---- whole strips; `strip` are those of one after the other, `stride` bytes apart

constexpr int64_t kAhead = 32;  // rows: what is read from memory is on its way by then

void prefetch(const std::byte* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

using Halves = uint16_t __attribute__((vector_size(16)));

// Two rows of bf16 as pairs, in `strips` strips.
void interleave(std::byte* strip, int64_t stride, const std::byte* even, const std::byte* odd,
                int64_t strips) {
  for (int64_t s = 0; s < strips; ++s, strip += stride)
    for (int64_t half = 0; half < 2; ++half, even += sizeof(Halves), odd += sizeof(Halves)) {
      Halves a, b;
      std::memcpy(&a, even, sizeof a);
      std::memcpy(&b, odd, sizeof b);
      const Halves low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
      const Halves high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
      std::memcpy(strip + 2 * half * sizeof(Halves), &low, sizeof low);
      std::memcpy(strip + (2 * half + 1) * sizeof(Halves), &high, sizeof high);
    }
}

}  // namespace

Stationary::Stationary(const npu_chip_desc& chip, Turn turn)
    : turn_(turn),
      own_(ceil_div(chip.mx_n, kStrip) * kStrip * (ceil_div(chip.mx_k, kPair) * kPair) * 4),
      rows_(std::max(chip.mx_k, chip.mx_n)) {}

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
  if (isa::Layout(op.layout) != isa::Layout::Packed) {
    const bool by_k = isa::Layout(op.layout) == isa::Layout::Kn;
    const int64_t count = by_k ? k_ : n_, bytes = (by_k ? n_ : k_) * dtype_size(op.dtype);
    if (!pending.find_rows(extent, op.src, op.stride, bytes, count, rows_.data())) {
      pending.before_read(extent, spm);
      for (int64_t r = 0; r < count; ++r) rows_[r] = spm + op.src + r * op.stride;
    }
    strip_stride_ = pack(op);
    strips_ = own_.data();
    aliased_ = {};
    return;
  }
  const std::byte* constant = pending.find(extent);
  if (!constant) pending.before_read(extent, spm);
  const std::byte* source = constant ? constant + (op.src - extent.begin) : spm + op.src;
  if (chip.strip == kStrip && (dtype_ == isa::Dtype::F32 || chip.pair == kPair)) {
    strips_ = source;
    strip_stride_ = op.stride;
    aliased_ = constant ? Extent{} : extent;
  } else {
    strip_stride_ = pack_foreign(source, op, chip);
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

// From rows_, of K or of N. Returns the stride of the strips it made.
int64_t Stationary::pack(const isa::MxLoad& op) {
  const int64_t size = dtype_size(op.dtype), pair = 4 / size, stride = ceil_div(k_, pair) * kStrip * 4;
  const int64_t strips = n_ / kStrip;  // whole ones
  if (isa::Layout(op.layout) == isa::Layout::Nk) {
    for (int64_t s = 0; s < ceil_div(n_, kStrip); ++s) {
      for (int64_t n = s * kStrip + kAhead; n < std::min((s + 1) * kStrip + kAhead, n_); ++n)
        prefetch(rows_[n], k_ * size);
      std::byte* strip = own_.data() + s * stride;
      const int64_t done = s < strips ? turn_(strip, rows_.data() + s * kStrip, k_ / pair) * pair : 0;
      pack_rest(op, done, k_, s * kStrip, std::min((s + 1) * kStrip, n_));
    }
    return stride;
  }
  int64_t done = 0;
  for (; done + pair <= k_; done += pair) {
    for (int64_t k = done + kAhead; k < std::min(done + kAhead + pair, k_); ++k)
      prefetch(rows_[k], n_ * size);
    std::byte* strip = own_.data() + done / pair * kStrip * 4;
    if (pair == kPair)
      interleave(strip, stride, rows_[done], rows_[done + 1], strips);
    else
      for (int64_t s = 0; s < strips; ++s)
        std::memcpy(strip + s * stride, rows_[done] + s * kStrip * 4, kStrip * 4);
  }
  pack_rest(op, done, k_, 0, strips * kStrip);
  pack_rest(op, 0, k_, strips * kStrip, n_);
  return stride;
}

// Elements [k, k_end) × [n, n_end), one by one.
void Stationary::pack_rest(const isa::MxLoad& op, int64_t k, int64_t k_end, int64_t n, int64_t n_end) {
  const bool by_k = isa::Layout(op.layout) == isa::Layout::Kn;
  const int64_t size = dtype_size(op.dtype), pair = 4 / size, stride = ceil_div(k_, pair) * kStrip * 4;
  for (; k < k_end; ++k)
    for (int64_t c = n; c < n_end; ++c)
      std::memcpy(
          own_.data() + c / kStrip * stride + ((k / pair * kStrip + c % kStrip) * pair + k % pair) * size,
          by_k ? rows_[k] + c * size : rows_[c] + k * size, size);
}

// From the packed layout of a chip with other strips or pairs than the kernels'.
int64_t Stationary::pack_foreign(const std::byte* source, const isa::MxLoad& op, const npu_chip_desc& chip) {
  const int64_t size = dtype_size(op.dtype), pair = 4 / size, stride = ceil_div(k_, pair) * kStrip * 4;
  const int64_t theirs = dtype_ == isa::Dtype::Bf16 ? chip.pair : 1;
  for (int64_t k = 0; k < k_; ++k)
    for (int64_t n = 0; n < n_; ++n) {
      const int64_t from = ((k / theirs * chip.strip + n % chip.strip) * theirs + k % theirs) * size;
      const int64_t to = ((k / pair * kStrip + n % kStrip) * pair + k % pair) * size;
      std::memcpy(own_.data() + n / kStrip * stride + to, source + n / chip.strip * op.stride + from, size);
    }
  return stride;
}

}  // namespace opennpu::native
