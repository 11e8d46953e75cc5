#include "call.h"

#include <ATen/native/Resize.h>
#include <ATen/ops/empty_strided.h>
#include <c10/util/Exception.h>

namespace opennpu::torch_device {

namespace {

// Python numbers stay as they are.
at::Tensor like_meta(const at::Tensor& t) {
  if (t.unsafeGetTensorImpl()->is_wrapped_number() && t.device().is_cpu()) return t;
  return at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kMeta));
}

c10::IValue like_meta(const c10::IValue& value) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? like_meta(value.toTensor()) : value;
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& t : value.toTensorVector()) list.push_back(like_meta(t));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& t : value.toOptionalTensorVector()) {
      list.push_back(t.has_value() && t->defined() ? std::make_optional(like_meta(*t)) : std::nullopt);
    }
    return list;
  }
  if (value.isGenerator()) return {};
  return value.isDevice() ? c10::IValue(c10::Device(at::kMeta)) : value;
}

Refusal refuse(const std::string& error) {
  return {"PyTorch cannot tell its results: " + error.substr(0, error.find('\n'))};
}

struct Silent final : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

// What the meta implementation returns; throws what it objects.
torch::jit::Stack run_meta(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  torch::jit::Stack stack;
  for (const c10::IValue& argument : arguments) stack.push_back(like_meta(argument));
  Silent silent;
  const c10::WarningUtils::WarningHandlerGuard no_warnings(&silent);  // the call itself warns
  op.callBoxed(stack);
  return stack;
}

}  // namespace

c10::ArrayRef<c10::IValue> Call::inputs() const {
  return torch::jit::last(*stack, op.schema().arguments().size())
      .slice(0, target.op.schema().arguments().size());
}

c10::ArrayRef<c10::IValue> Call::outputs() const {
  const size_t count = op.schema().arguments().size(), inputs = target.op.schema().arguments().size();
  const auto arguments = torch::jit::last(*stack, count);
  return form == Form::in_place ? arguments.slice(0, 1) : arguments.slice(inputs);
}

void Call::finish(const std::vector<at::Tensor>& results) const {
  std::vector<at::Tensor> finished = results;
  const auto given = outputs();
  for (size_t i = 0; i < given.size(); ++i) {
    const at::Tensor& out = given[i].toTensor();
    if (out.is_same(results[i])) continue;
    if (form == Form::out) at::native::resize_output(out, results[i].sizes());
    TORCH_CHECK(out.sizes() == results[i].sizes(), "output with shape ", out.sizes(),
                " doesn't match the broadcast shape ", results[i].sizes());
    out.copy_(results[i]);
    finished[i] = out;
  }
  torch::jit::drop(*stack, op.schema().arguments().size());
  for (at::Tensor& tensor : finished) stack->emplace_back(std::move(tensor));
}

std::optional<Refusal> refuse_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
    case at::kBFloat16:
    case at::kLong:
    case at::kInt:
    case at::kChar:
    case at::kBool:
      return std::nullopt;
    default:
      return Refusal{c10::str("the chip has no ", c10::toString(dtype),
                              "; it has float32, bfloat16, int64, int32, int8 and bool")};
  }
}

void CommonDevice::add(const at::Tensor& tensor) {
  if (!device_.has_value()) device_ = tensor.device();
  TORCH_CHECK(tensor.device() == *device_,
              "Expected all tensors to be on the same device, but found at least two devices, ", *device_,
              " and ", tensor.device(), "!");
}

std::variant<std::vector<at::Tensor>, Refusal> infer(const c10::OperatorHandle& op,
                                                     c10::ArrayRef<c10::IValue> arguments) {
  torch::jit::Stack stack;
  try {
    stack = run_meta(op, arguments);
  } catch (const c10::Error& error) {
    return refuse(error.what_without_backtrace());
  } catch (const std::exception& error) {  // from Python
    return refuse(error.what());
  }
  std::vector<at::Tensor> results;
  for (const c10::IValue& result : stack) results.push_back(result.toTensor());
  return results;
}

void check_arguments(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  try {
    run_meta(op, arguments);
  } catch (const c10::NotImplementedError&) {  // nothing tells
  }
}

}  // namespace opennpu::torch_device
