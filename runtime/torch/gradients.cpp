#include "gradients.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

namespace opennpu::torch_device {

namespace {

namespace autograd = torch::autograd;

// Stands for the backward of an operator that has none.
class NoGradient final : public autograd::Node {
 public:
  NoGradient(std::string op, autograd::edge_list next) : Node(std::move(next)), op_(std::move(op)) {}

  autograd::variable_list apply(autograd::variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false, op_,
        " has no gradient: use the form in torch.nn.functional, or call it under torch.no_grad()");
  }

 private:
  std::string op_;
};

// Whether a gradient is asked for in backward or forward mode.
bool needs_gradient(const at::Tensor& t) {
  return t.defined() && (t._fw_grad(0).defined() || (c10::GradMode::is_enabled() && t.requires_grad()));
}

// The tensors among arguments that ask for a gradient.
std::vector<at::Tensor> differentiated(c10::ArrayRef<c10::IValue> arguments) {
  std::vector<at::Tensor> found;
  for (const c10::IValue& value : arguments) {
    if (value.isTensor() && needs_gradient(value.toTensor())) found.push_back(value.toTensor());
    if (!value.isTensorList()) continue;
    for (const at::Tensor& t : value.toTensorVector()) {
      if (needs_gradient(t)) found.push_back(t);
    }
  }
  return found;
}

}  // namespace

void take_apart(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  op.callBoxedForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd, *stack);
}

void composite_autograd(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (!differentiated(torch::jit::last(*stack, op.schema().arguments().size())).empty()) {
    return take_apart(op, stack);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  op.redispatchBoxed(keys & c10::after_autograd_keyset, stack);
}

void no_gradient(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto sources = differentiated(torch::jit::last(*stack, op.schema().arguments().size()));
  {
    const at::AutoDispatchBelowAutograd guard;
    op.redispatchBoxed(keys & c10::after_autograd_keyset, stack);
  }
  if (sources.empty()) return;
  const auto node =
      c10::make_intrusive<NoGradient>(op.schema().name(), autograd::collect_next_edges(sources));
  for (const c10::IValue& result : torch::jit::last(*stack, op.schema().returns().size())) {
    const at::Tensor& t = result.toTensor();
    if (t.defined() && autograd::isDifferentiableType(t.scalar_type())) autograd::set_history(t, node);
  }
}

}  // namespace opennpu::torch_device
