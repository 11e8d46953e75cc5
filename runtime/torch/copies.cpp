#include "copies.h"

#include <ATen/ops/_copy_from.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstring>

#include "allocator.h"
#include "dispatch.h"
#include "pinned.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

// Host memory up to this size is copied aside, so that the call need not wait for the stream.
constexpr size_t kStageBytes = 256 << 10;

bool on_device(const at::Tensor& t) { return t.device().type() == kType; }

npu_address address_of(const at::Tensor& t) { return torch_device::address_of(t.data_ptr()); }

bool same_values(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg();
}

// Whether the elements of both lie in memory in the same order without gaps, so that bytes can be copied.
bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (!same_values(a, b)) return false;
  if (a.is_contiguous() && b.is_contiguous()) return true;
  return a.strides() == b.strides() && a.is_non_overlapping_and_dense();
}

// A host tensor that holds its elements as `t`, which has no gaps, does.
at::Tensor host_like(const at::Tensor& t) {
  at::Tensor host = at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kCPU));
  host._set_conj(t.is_conj());
  host._set_neg(t.is_neg());
  return host;
}

bool overlap(const at::Tensor& a, const at::Tensor& b) {
  const npu_address begin_a = address_of(a), begin_b = address_of(b);
  return begin_a < begin_b + b.nbytes() && begin_b < begin_a + a.nbytes();
}

// Elements from the first to the last that a strided tensor touches.
size_t span(const at::Tensor& t) {
  size_t last = 0;
  for (int64_t dim = 0; dim < t.dim(); ++dim) {
    if (t.size(dim) == 0) return 0;
    last += static_cast<size_t>((t.size(dim) - 1) * t.stride(dim));
  }
  return last + 1;
}

// The tensor's memory on the host, with the same sizes and strides.
at::Tensor host_image(const at::Tensor& t) {
  const auto elements = static_cast<int64_t>(span(t));
  at::Tensor flat = at::empty({elements}, t.options().device(at::kCPU));
  copy_to_host(t.get_device(), flat.mutable_data_ptr(), address_of(t), flat.nbytes());
  at::Tensor image = flat.as_strided(t.sizes(), t.strides());
  image._set_conj(t.is_conj());
  image._set_neg(t.is_neg());
  return image;
}

void copy_within(const at::Tensor& dst, const at::Tensor& src) {
  const DeviceIndex index = dst.get_device();
  if (same_bytes(dst, src)) {
    if (address_of(dst) == address_of(src)) return;
    if (!overlap(dst, src)) {
      check(chip(index).driver->copy_on_device(current_stream(index), address_of(dst), address_of(src),
                                               dst.nbytes()));
      return;
    }
  }
  copy_by_program(dst, src);
}

void copy_in(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  const DeviceIndex index = dst.get_device();
  if (same_bytes(dst, src)) {
    copy_to_device(index, address_of(dst), src.const_data_ptr(), src.nbytes(), non_blocking);
  } else if (dst.is_non_overlapping_and_dense()) {
    copy_in(dst, host_like(dst).copy_(src), false);
  } else {
    at::Tensor packed = at::empty(dst.sizes(), dst.options());
    copy_in(packed, src, non_blocking);
    copy_within(dst, packed);
  }
}

void copy_out(const at::Tensor& dst, const at::Tensor& src, bool non_blocking) {
  const DeviceIndex index = src.get_device();
  if (same_bytes(dst, src)) {
    if (non_blocking && is_pinned(dst.data_ptr())) {
      queue_copy_to_host(index, dst.mutable_data_ptr(), address_of(src), src.nbytes());
      record_pinned(dst.data_ptr(), current_stream_of(index));
    } else {
      copy_to_host(index, dst.mutable_data_ptr(), address_of(src), src.nbytes());
    }
  } else if (src.is_non_overlapping_and_dense()) {
    dst.copy_(host_image(src));
  } else {
    at::Tensor packed = at::empty(src.sizes(), src.options());
    copy_within(packed, src);
    dst.copy_(host_image(packed));
  }
}

at::Tensor copy_from(const at::Tensor& src, const at::Tensor& dst, bool non_blocking) {
  if (dst.numel() == 0) return dst;
  const at::Tensor from = src.sizes() == dst.sizes() ? src : src.expand(dst.sizes());
  const c10::DeviceGuard guard(on_device(dst) ? dst.device() : src.device());
  if (!on_device(from)) {
    copy_in(dst, from, non_blocking);
  } else if (!on_device(dst)) {
    copy_out(dst, from, non_blocking);
  } else if (from.device() == dst.device()) {
    copy_within(dst, from);
  } else {
    copy_in(dst, from.to(at::kCPU), false);
  }
  return dst;
}

at::Tensor copy_from_and_resize(const at::Tensor& src, const at::Tensor& dst) {
  dst.resize_(src.sizes());
  return copy_from(src, dst, false);
}

at::Scalar local_scalar_dense(const at::Tensor& t) { return at::_local_scalar_dense(host_image(t)); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
}

// The copies above see to these bits; PyTorch would copy to resolve them, which ends here again.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

}  // namespace

void copy_to_device(DeviceIndex index, npu_address to, const void* from, size_t bytes, bool non_blocking) {
  if (bytes == 0) return;
  const npu_driver* driver = chip(index).driver;
  const c10::Stream stream = current_stream_of(index);
  const bool pinned = non_blocking && is_pinned(from);
  if (!pinned && bytes > kStageBytes) {
    check(driver->copy_to_device(native_stream(stream), to, from, bytes));
    return synchronize_stream(stream);
  }
  c10::DataPtr staged;
  if (!pinned) {
    staged = pinned_allocator()->allocate(bytes);
    from = std::memcpy(staged.get(), from, bytes);
  }
  check(driver->copy_to_device(native_stream(stream), to, from, bytes));
  record_pinned(from, stream);
}

void queue_copy_to_host(DeviceIndex index, void* to, npu_address from, size_t bytes) {
  if (bytes != 0) check(chip(index).driver->copy_to_host(current_stream(index), to, from, bytes));
}

void copy_to_host(DeviceIndex index, void* to, npu_address from, size_t bytes) {
  queue_copy_to_host(index, to, from, bytes);
  synchronize_stream(current_stream_of(index));
}

void copy_by_host(const at::Tensor& dst, const at::Tensor& src) {
  const at::Tensor image = dst.is_non_overlapping_and_dense() ? host_like(dst) : host_image(dst);
  image.copy_(host_image(src));
  copy_to_device(dst.get_device(), address_of(dst), image.const_data_ptr(), span(image) * image.itemsize());
}

}  // namespace opennpu::torch_device
