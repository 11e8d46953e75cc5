// What stands before the kernels of operators that have no gradient of their own.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace opennpu::torch_device {

// Runs an operator as the operators that it is made of.
void take_apart(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// The operator whole where no gradient is asked for, else taken apart.
void composite_autograd(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

// The operator; a backward pass through its results raises NotImplementedError.
void no_gradient(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

}  // namespace opennpu::torch_device
