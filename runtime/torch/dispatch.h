// The operators that run on the chip, and where PyTorch's dispatcher meets them.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace opennpu::torch_device {

// A line of runtime/torch_device/native.py: an operator of PyTorch, the operator of the conversion table
// that computes it, and its kind: "pointwise", "product", "whole", "update",
// "composite" or "joined".
struct NativeOperator {
  std::string name, target, kind;
};

// Registers kernels for the operators, and for their in-place and out= forms. Those of a namespace other
// than aten must have been defined.
void register_operators(const std::vector<NativeOperator>& operators);

// dst = src, both on one device, of any dtypes and strides; `src` broadcasts. Counted as `aten::copy_`
// where the host must do it.
void copy_by_program(const at::Tensor& dst, const at::Tensor& src);

}  // namespace opennpu::torch_device
