// Operators that make tensors, look at them in another way, or change what they refer to: no data moves,
// except when a storage grows.
#include "factories.h"

#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>

#include "allocator.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

using at::Tensor;
using c10::IntArrayRef;
using c10::SymIntArrayRef;

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

// Checks what a factory was asked for and makes its device the current one while the tensor is made.
c10::DeviceGuard checked(std::optional<c10::Device> device, std::optional<bool> pin_memory) {
  TORCH_CHECK(!c10::pinned_memory_or_default(pin_memory), "opennpu: only tensors of the CPU can be pinned");
  return c10::DeviceGuard(c10::device_or_default(device));
}

Tensor empty(IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
             std::optional<c10::Device> device, std::optional<bool> pin_memory,
             std::optional<c10::MemoryFormat> format) {
  const c10::DeviceGuard guard = checked(device, pin_memory);
  return at::detail::empty_generic(size, &allocator(), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<c10::Device> device,
                     std::optional<bool> pin_memory) {
  const c10::DeviceGuard guard = checked(device, pin_memory);
  return at::detail::empty_strided_generic(size, stride, &allocator(), kKeys, c10::dtype_or_default(dtype));
}

// ---- views: PyTorch's own, which look at sizes and strides only

Tensor as_strided(const Tensor& self, IntArrayRef size, IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

Tensor view(const Tensor& self, IntArrayRef size) { return at::native::view(self, size); }

Tensor reshape_alias(const Tensor& self, IntArrayRef size, IntArrayRef stride) {
  return at::native::_reshape_alias(self, size, stride);
}

Tensor unfold(const Tensor& self, int64_t dim, int64_t size, int64_t step) {
  return at::native::unfold(self, dim, size, step);
}

bool is_set_to(const Tensor& self, const Tensor& other) { return at::native::is_set_to(self, other); }

// ---- sizes and storage

// Makes the storage large enough for the tensor's sizes and strides.
void grow_storage(const Tensor& t) {
  if (t.numel() == 0) return;
  const size_t needed = at::detail::computeStorageNbytes(t.sizes(), t.strides(), t.itemsize(),
                                                         static_cast<size_t>(t.storage_offset()));
  if (needed > t.storage().nbytes()) resize_storage(t.storage(), needed);
}

const Tensor& resize_(const Tensor& self, IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  if (self.sizes() != size) impl->set_sizes_contiguous(size);
  if (format.has_value()) {
    TORCH_CHECK(*format != c10::MemoryFormat::Preserve, "resize_: memory format Preserve is not supported");
    impl->empty_tensor_restride(*format);
  }
  grow_storage(self);
  return self;
}

Tensor& set_storage_offset_(Tensor& self, c10::Storage storage, int64_t offset, IntArrayRef size,
                            IntArrayRef stride) {
  at::native::checkSetStorage(self, std::move(storage), offset, size, stride);
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  if (stride.data() == nullptr) {
    impl->set_sizes_contiguous(size);
    impl->set_storage_offset(offset);
  } else {
    impl->set_sizes_and_strides(size, stride, offset);
  }
  grow_storage(self);
  return self;
}

Tensor& set_storage_(Tensor& self, c10::Storage storage) {
  const auto elements = static_cast<int64_t>(storage.nbytes() / self.itemsize());
  return set_storage_offset_(self, std::move(storage), 0, {elements}, {});
}

Tensor& set_tensor_(Tensor& self, const Tensor& source) { return at::native::set_tensor_(self, source); }

Tensor& set_(Tensor& self) {
  c10::Storage storage(c10::Storage::use_byte_size_t(), 0, allocate(self.get_device(), 0), &allocator(),
                       true);
  return set_storage_offset_(self, std::move(storage), 0, {0}, {});
}

void record_stream(Tensor& self, c10::Stream stream) {
  allocator().recordStream(self.storage().data_ptr(), stream);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
  m.impl("is_set_to", is_set_to);
  m.impl("resize_", resize_);
  m.impl("set_", set_);
  m.impl("set_.source_Storage", set_storage_);
  m.impl("set_.source_Storage_storage_offset", set_storage_offset_);
  m.impl("set_.source_Tensor", set_tensor_);
  m.impl("record_stream", record_stream);
}

}  // namespace

void resize_storage(const c10::Storage& storage, size_t bytes) {
  TORCH_CHECK(storage.resizable(), "Trying to resize storage that is not resizable");
  const DeviceIndex index = storage.device().index();
  c10::DataPtr data = allocate(index, bytes);
  if (const size_t kept = std::min(bytes, storage.nbytes())) {
    check(chip(index).driver->copy_on_device(current_stream(index), address_of(data.get()),
                                             address_of(storage.data()), kept));
  }
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
  storage.unsafeGetStorageImpl()->set_nbytes(bytes);
}

}  // namespace opennpu::torch_device
