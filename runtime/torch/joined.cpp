// Operands one behind the other in the result's memory: as many copies, whatever their sizes. A program
// would be for so many operands, and calls differ in that.
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "call.h"

namespace opennpu::torch_device {

namespace {

// The sizes of torch.cat's result where that lies so; nothing for what `run_whole` is to see.
std::optional<Numbers> joined_sizes(c10::ArrayRef<at::Tensor> parts, int64_t dim) {
  if (parts.empty() || parts[0].dim() == 0) return std::nullopt;
  const int64_t rank = parts[0].dim(), axis = dim < 0 ? dim + rank : dim;
  if (axis < 0 || axis >= rank) return std::nullopt;
  Numbers sizes(parts[0].sizes().begin(), parts[0].sizes().end());
  const auto before = c10::IntArrayRef(sizes).slice(0, axis);
  if (std::any_of(before.begin(), before.end(), [](int64_t n) { return n != 1; })) return std::nullopt;
  sizes[axis] = 0;
  for (const at::Tensor& part : parts) {
    if (part.dim() != rank || part.numel() == 0 || refuse_dtype(part.scalar_type())) return std::nullopt;
    sizes[axis] += part.size(axis);
    for (int64_t i = 0; i < rank; ++i) {
      if (i != axis && part.size(i) != sizes[i]) return std::nullopt;
    }
  }
  return sizes;
}

}  // namespace

std::optional<Refusal> run_joined(const Call& call) {
  if (call.form != Form::functional) return run_whole(call);
  const std::vector<at::Tensor> parts = call.inputs()[0].toTensorVector();
  const auto sizes = joined_sizes(parts, call.inputs()[1].toInt());
  if (!sizes) return run_whole(call);
  CommonDevice device;
  for (const at::Tensor& part : parts) device.add(part);
  const auto options = parts[0].options().dtype(at::native::result_type(parts));
  const at::Tensor result = at::empty(*sizes, options);
  const at::Tensor behind = result.view(-1);
  int64_t begin = 0;
  for (const at::Tensor& part : parts) {
    behind.narrow(0, begin, part.numel()).view(part.sizes()).copy_(part);
    begin += part.numel();
  }
  call.finish({result});
  return std::nullopt;
}

}  // namespace opennpu::torch_device
