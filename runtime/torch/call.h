// A call of a native operator, on its way from PyTorch's dispatcher to a program.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <optional>
#include <string>
#include <vector>

#include "programs.h"

namespace opennpu::torch_device {

// What a pointwise operator computes for operands of certain dtypes.
struct Typing {
  at::ScalarType result;
  at::ScalarType common;  // what numbers among the operands become
  std::string refusal;    // not empty: why it is not for the chip
  KeyMap<Programs> programs;
};

// An operator of the conversion table, shared by the forms that PyTorch gives it.
struct Target {
  enum class Kind {
    pointwise,  // element by element
    product,    // of operands of one dtype
    whole,      // any other
    update,     // that writes some elements of its first argument
    composite,  // PyTorch would take it apart
    joined,     // of operands one behind the other
  };

  std::string name;  // as in the conversion table
  c10::OperatorHandle op;
  Kind kind;
  KeyMap<Typing> typings;     // pointwise
  KeyMap<Programs> programs;  // any other kind
};

enum class Form : uint64_t { functional, in_place, out };

struct Call {
  Target& target;
  Form form;
  const c10::OperatorHandle& op;
  torch::jit::Stack* stack;

  // The arguments that a functional call has as well.
  c10::ArrayRef<c10::IValue> inputs() const;

  // The tensors that take the results; empty for a functional call.
  c10::ArrayRef<c10::IValue> outputs() const;

  // Replaces the arguments on the stack by the results. Where the call names tensors to take them,
  // they are resized and written, unless the results are they.
  void finish(const std::vector<at::Tensor>& results) const;
};

// Each runs the call, or says why it cannot and leaves the stack as it is.
std::optional<Refusal> run_pointwise(const Call& call);
std::optional<Refusal> run_whole(const Call& call);
std::optional<Refusal> run_update(const Call& call);
std::optional<Refusal> run_joined(const Call& call);

// ---- what they do alike

// Nothing when the chip has the dtype.
std::optional<Refusal> refuse_dtype(at::ScalarType dtype);

// The device of the tensors on the chip; throws PyTorch's error when there are several.
class CommonDevice {
 public:
  void add(const at::Tensor& tensor);
  DeviceIndex index() const { return device_->index(); }
  c10::Device device() const { return *device_; }

 private:
  std::optional<c10::Device> device_;
};

// The results' shapes and dtypes by PyTorch's meta implementation of the operator; a refusal where it has
// none or objects to the arguments, which the host will tell in its words.
std::variant<std::vector<at::Tensor>, Refusal> infer(const c10::OperatorHandle& op,
                                                     c10::ArrayRef<c10::IValue> arguments);

// Throws PyTorch's error for wrong arguments, as far as a meta implementation of the operator tells.
void check_arguments(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments);

}  // namespace opennpu::torch_device
