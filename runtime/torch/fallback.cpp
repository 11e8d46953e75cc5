#include "fallback.h"

#include <ATen/Context.h>
#include <ATen/native/CPUFallback.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

#include "call.h"
#include "device.h"
#include "generator.h"

namespace opennpu::torch_device {

namespace {

struct Counts {
  std::mutex mutex;
  std::map<std::string, Fallback> calls;
  std::set<std::string> warned;
  std::map<std::string, int64_t> at_home;  // of the operators whose place is the host; all of them
};

Counts& counts() {
  static auto* const counts = new Counts;  // never destroyed: threads may end after main
  return *counts;
}

std::atomic<bool>& strict_flag() {
  const bool wanted = settings().strict;  // may run Python: not while the static's initialization is locked
  static std::atomic<bool> flag = wanted;
  return flag;
}

// The tensors of an argument, those of lists among them.
template <typename Visit>
bool all_tensors(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) return !value.toTensor().defined() || visit(value.toTensor());
  if (!value.isList()) return true;
  for (const c10::IValue& item : value.toListRef()) {
    if (!all_tensors(item, visit)) return false;
  }
  return true;
}

// Whether the call computes nothing from elements on the chip: it makes or fills tensors from
// arguments or random numbers alone, or has tensors without elements. Such calls are not counted.
bool reads_nothing(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments) {
  const auto& declared = op.schema().arguments();
  const bool random = op.hasTag(at::Tag::nondeterministic_seeded);
  const auto empty = [](const at::Tensor& t) { return t.device().type() != kType || t.numel() == 0; };
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool filled = declared[i].is_out() || (random && declared[i].alias_info() != nullptr &&
                                                 declared[i].alias_info()->isWrite());
    if (!filled && !all_tensors(arguments[i], empty)) return false;
  }
  return true;
}

c10::Device device_of(c10::ArrayRef<c10::IValue> arguments) {
  c10::Device found(kType, current_device());
  const auto visit = [&](const at::Tensor& t) {
    if (t.device().type() == kType) found = t.device();
    return t.device().type() != kType;
  };
  for (const c10::IValue& argument : arguments) {
    if (argument.isDevice() && argument.toDevice().has_index()) found = argument.toDevice();
    if (!all_tensors(argument, visit)) break;
  }
  return found;
}

// Random numbers come from the device's generator, also on the host.
void replace_generators(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& declared = op.schema().arguments();
  auto arguments = torch::jit::last(*stack, declared.size());
  for (size_t i = 0; i < declared.size(); ++i) {
    const auto* optional = declared[i].real_type()->castRaw<c10::OptionalType>();
    const c10::Type& type = optional == nullptr ? *declared[i].real_type() : *optional->getElementType();
    if (type.kind() != c10::TypeKind::GeneratorType) continue;
    const c10::IValue& given = arguments[i];
    const auto generator = given.isNone() ? std::nullopt : std::make_optional(given.toGenerator());
    stack->at(stack->size() - declared.size() + i) = host_generator(generator, device_of(arguments).index());
  }
}

// The host's result would be a copy, not a view of the argument's memory.
bool makes_view(const c10::OperatorHandle& op) {
  const auto& returns = op.schema().returns();
  return std::any_of(returns.begin(), returns.end(), [](const c10::Argument& result) {
    return result.alias_info() != nullptr && !result.alias_info()->isWrite();
  });
}

// Whether the operator's place is the host; such a call is counted.
bool at_home(const std::string& name) {
  const std::lock_guard lock(counts().mutex);
  const auto found = counts().at_home.find(name);
  if (found == counts().at_home.end()) return false;
  ++found->second;
  return true;
}

[[noreturn]] void refuse_strictly(const std::string& name, const std::string& reason) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, name, " does not run on the device opennpu: ", reason,
                              ". It could run on the host, which strict mode forbids: unset OPENNPU_STRICT "
                              "or call torch.opennpu.set_strict(False).");
}

void count(const std::string& name, const std::string& reason) {
  bool first;
  {
    const std::lock_guard lock(counts().mutex);
    Fallback& fallback = counts().calls[name];
    ++fallback.calls;
    fallback.reason = reason;
    first = counts().warned.insert(name).second;
  }
  if (first) {
    TORCH_WARN(name, " runs on the host, not on the device opennpu: ", reason,
               ". The result is right, but every call copies its tensors to the host and back. "
               "torch.opennpu.fallbacks() counts such calls; OPENNPU_STRICT=1 makes them errors.");
  }
}

void fall_back(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_host(op, stack, "the compiler has no lowering for it");
}

// PyTorch sends the convolutions of a device of its own to two operators that no other device has.

void convolution(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  fall_back(op, stack);
}

void convolution_backward(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
  const size_t first = stack->size() - (op.schema().arguments().size() - 1);
  const int64_t features = stack->at(first).toTensor().size(1);
  constexpr size_t kBiasSizes = 3;  // an argument that only the other operator has
  stack->insert(stack->begin() + static_cast<ptrdiff_t>(first + kBiasSizes), c10::List<int64_t>({features}));
  fall_back(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fall_back>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  m.impl("convolution_backward_overrideable",
         torch::CppFunction::makeFromBoxedFunction<&convolution_backward>());
}

}  // namespace

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack, const std::string& reason) {
  const std::string& name = op.schema().name();
  TORCH_CHECK_NOT_IMPLEMENTED(!makes_view(op), name,
                              " is not implemented on the device opennpu: it makes a "
                              "view of a tensor's memory, which cannot be done on the host");
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const bool counted = !reads_nothing(op, arguments) && !at_home(name);
  if (counted && strict()) {  // before anything is computed: the call may write its arguments
    check_arguments(op, arguments);
    refuse_strictly(name, reason);
  }
  replace_generators(op, stack);
  at::native::cpu_fallback(op, stack);  // first: for wrong arguments PyTorch's error is the one to show
  if (counted) count(name, reason);
}

void count_fallback(const std::string& name, const std::string& reason) {
  if (strict()) refuse_strictly(name, reason);
  count(name, reason);
}

std::map<std::string, Fallback> fallbacks() {
  const std::lock_guard lock(counts().mutex);
  return counts().calls;
}

void reset_fallbacks() {
  const std::lock_guard lock(counts().mutex);
  counts().calls.clear();
  for (auto& [name, calls] : counts().at_home) calls = 0;
}

void allow_on_host(const std::vector<std::string>& names) {
  const std::lock_guard lock(counts().mutex);
  for (const std::string& name : names) counts().at_home.try_emplace(name, 0);
}

std::map<std::string, int64_t> host_calls() {
  const std::lock_guard lock(counts().mutex);
  std::map<std::string, int64_t> calls;
  for (const auto& [name, count] : counts().at_home) {
    if (count > 0) calls[name] = count;
  }
  return calls;
}

bool strict() { return strict_flag(); }

void set_strict(bool strict) { strict_flag() = strict; }

}  // namespace opennpu::torch_device
