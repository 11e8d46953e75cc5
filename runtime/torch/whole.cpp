// Operators that are compiled for shapes of their own: all that are not pointwise.
#include <ATen/MemoryOverlap.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/empty_strided.h>

#include <algorithm>
#include <set>

#include "call.h"

namespace opennpu::torch_device {

namespace {

struct Gathered {
  // Throws for a tensor on another device, unless it is an index.
  void add(const at::Tensor& tensor, bool index = false) {
    const bool moved = index && tensor.device().is_cpu() && !operands.empty();
    if (!moved) device.add(tensor);
    operands.push_back(Operand(moved ? tensor.to(device.device()) : tensor));
    Operand& operand = operands.back();
    for (size_t i = 0; i < operand.sizes.size(); ++i) {
      if (operand.sizes[i] == 1) operand.strides[i] = 0;  // of no meaning
    }
    key.add(tensor.scalar_type(), operand.sizes, operand.strides);
  }

  [[nodiscard]] bool add(const c10::IValue& value) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) return add(value.toTensor()), true;
      return key.add(c10::IValue());
    }
    if (!value.isTensorList() && !value.isOptionalTensorList()) return key.add(value);
    key.add(value.toListRef().size());
    for (const c10::IValue& item : value.toListRef()) {
      if (item.isTensor() && item.toTensor().defined()) {
        add(item.toTensor(), value.isOptionalTensorList());
      } else if (!key.add(c10::IValue())) {
        return false;
      }
    }
    return true;
  }

  Operands operands;
  Key key;
  CommonDevice device;
};

// An old rule of torch.cat: operands of shape [0] count for nothing but their dtype.
c10::IValue without_empty(const c10::IValue& value) {
  if (!value.isTensorList()) return value;
  const std::vector<at::Tensor> all = value.toTensorVector();
  c10::List<at::Tensor> kept;
  for (const at::Tensor& t : all) {
    if (t.dim() != 1 || t.numel() > 0) kept.push_back(t);
  }
  if (kept.empty() || kept.size() == all.size()) return value;
  kept.set(0, kept.get(0).to(at::native::result_type(all)));
  return kept;
}

std::vector<c10::IValue> inputs_of(const Call& call) {
  std::vector<c10::IValue> inputs = call.inputs().vec();
  if (call.target.name == "aten.cat") inputs[0] = without_empty(inputs[0]);
  return inputs;
}

// Whether the operands have several dtypes, where the operator wants one; a mask counts for nothing.
bool mixes_dtypes(Target::Kind kind, const Operands& operands) {
  if (kind == Target::Kind::whole) return false;
  std::optional<at::ScalarType> first;
  for (const Operand& operand : operands) {
    const at::ScalarType dtype = operand.tensor.scalar_type();
    if (dtype == at::kBool && kind == Target::Kind::composite) continue;
    if (dtype != first.value_or(dtype)) return true;
    first = dtype;
  }
  return false;
}

bool lacks_elements(const Operands& operands) {
  return std::any_of(operands.begin(), operands.end(),
                     [](const Operand& o) { return o.tensor.numel() == 0; });
}

// A call with tensors without elements: its results, where they have none either.
std::optional<Refusal> run_empty(const Call& call, c10::Device device) {
  const auto arguments = torch::jit::last(*call.stack, call.op.schema().arguments().size());
  auto inferred = infer(call.op, arguments);
  if (auto* refusal = std::get_if<Refusal>(&inferred)) return std::move(*refusal);
  auto& results = std::get<0>(inferred);
  for (at::Tensor& result : results) {
    if (result.numel() > 0) return Refusal{"a tensor without elements is among its operands"};
    result = at::empty_strided(result.sizes(), result.strides(), result.options().device(device));
  }
  call.finish(results);
  return std::nullopt;
}

bool all_empty(const std::vector<at::Tensor>& results) {
  const auto empty = [](const at::Tensor& t) { return t.numel() == 0; };
  return !results.empty() && std::all_of(results.begin(), results.end(), empty);
}

// These write no memory that they read, as on the CPU.
void check_overlap(const Call& call, const Operands& operands) {
  static const std::set<std::string> kApart = {"aten.cat", "aten.gather", "aten.index.Tensor",
                                               "aten.index_select"};
  if (call.form != Form::out || !kApart.contains(call.target.name)) return;
  for (const Operand& operand : operands) at::assert_no_overlap(call.outputs()[0].toTensor(), operand.tensor);
}

bool share_memory(const at::Tensor& out, const Operands& operands) {
  return std::any_of(operands.begin(), operands.end(),
                     [&](const Operand& o) { return o.tensor.storage().is_alias_of(out.storage()); });
}

// The results go straight to where they are wanted, as far as that has their layout.
void use_outputs(const Call& call, const Operands& operands, std::vector<at::Tensor>& results) {
  const auto outputs = call.outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor& out = outputs[i].toTensor();
    if (out.sizes() == results[i].sizes() && out.scalar_type() == results[i].scalar_type() &&
        out.is_contiguous() && !share_memory(out, operands)) {
      results[i] = out;
    }
  }
}

// The program for the operands, and for the outputs where they exist already.
std::variant<Fitting, Refusal> program_for(const Call& call, Gathered& gathered,
                                           c10::ArrayRef<c10::IValue> inputs,
                                           c10::ArrayRef<Operand> outputs) {
  const DeviceIndex index = gathered.device.index();
  gathered.key.add(static_cast<uint64_t>(index));
  Programs* programs = call.target.programs.find(gathered.key);
  if (programs == nullptr) programs = &call.target.programs.add(gathered.key, std::make_unique<Programs>());
  const auto check = [&]() -> std::optional<Refusal> {
    const auto inferred = infer(call.op, torch::jit::last(*call.stack, call.op.schema().arguments().size()));
    const auto* refusal = std::get_if<Refusal>(&inferred);
    return refusal == nullptr ? std::nullopt : std::make_optional(*refusal);
  };
  Operands measured = gathered.operands;
  measured.append(outputs.begin(), outputs.end());
  return programs->get(index, measured,
                       {call.target.name, call.target.op, inputs, gathered.operands, outputs, check});
}

}  // namespace

std::optional<Refusal> run_whole(const Call& call) {
  const std::vector<c10::IValue> inputs = inputs_of(call);
  Gathered gathered;
  gathered.key.add(static_cast<uint64_t>(call.form));
  for (const c10::IValue& input : inputs) {
    if (!gathered.add(input)) return Refusal{"an argument of it is nothing to compile for"};
  }
  for (const c10::IValue& out : call.outputs()) {
    gathered.device.add(out.toTensor());
    gathered.key.add(static_cast<uint64_t>(out.toTensor().scalar_type()));
  }
  for (const Operand& operand : gathered.operands) {
    if (auto refusal = refuse_dtype(operand.tensor.scalar_type())) return refusal;
  }
  if (mixes_dtypes(call.target.kind, gathered.operands)) return Refusal{"its operands have several dtypes"};
  check_overlap(call, gathered.operands);
  const bool composite = call.target.kind == Target::Kind::composite;
  if (lacks_elements(gathered.operands)) {
    return composite ? Refusal{"its parts tell"} : run_empty(call, gathered.device.device());
  }
  const auto found = program_for(call, gathered, inputs, {});
  if (const auto* refusal = std::get_if<Refusal>(&found)) return *refusal;
  const auto& [program, symbols] = std::get<Fitting>(found);
  std::vector<at::Tensor> results = program->allocate(symbols);
  use_outputs(call, gathered.operands, results);
  if (!all_empty(results)) {
    const std::vector<Operand> outputs(results.begin(), results.end());
    program->launch(symbols, gathered.operands, outputs);
  }
  call.finish(results);
  return std::nullopt;
}

// The first argument, or a copy of it, is operand and output at once.
std::optional<Refusal> run_update(const Call& call) {
  std::vector<c10::IValue> inputs = call.inputs().vec();
  const at::Tensor given = inputs[0].toTensor();
  const at::Tensor result = call.form == Form::in_place ? given : given.clone();
  if (at::has_internal_overlap(result) == at::MemOverlap::Yes)
    return Refusal{"it writes places that overlap"};
  inputs[0] = result;
  Gathered gathered;
  for (const c10::IValue& input : inputs) {
    if (!gathered.add(input)) return Refusal{"an argument of it is nothing to compile for"};
  }
  for (const Operand& operand : gathered.operands) {
    if (auto refusal = refuse_dtype(operand.tensor.scalar_type())) return refusal;
    if (&operand != gathered.operands.begin()) at::assert_no_overlap(result, operand.tensor);
  }
  if (!lacks_elements(gathered.operands)) {
    const Operand output = gathered.operands[0];
    const auto found = program_for(call, gathered, inputs, output);
    if (const auto* refusal = std::get_if<Refusal>(&found)) return *refusal;
    const auto& [program, symbols] = std::get<Fitting>(found);
    program->launch(symbols, gathered.operands, output);
  } else if (auto inferred =
                 infer(call.op, torch::jit::last(*call.stack, call.op.schema().arguments().size()));
             const auto* refusal = std::get_if<Refusal>(&inferred)) {
    return *refusal;
  }
  call.finish({result});
  return std::nullopt;
}

}  // namespace opennpu::torch_device
