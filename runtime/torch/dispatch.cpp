#include "dispatch.h"

#include <torch/library.h>

#include <map>
#include <memory>

#include "call.h"
#include "fallback.h"
#include "gradients.h"

namespace opennpu::torch_device {

namespace {

class Kernel final : public c10::OperatorKernel {
 public:
  Kernel(std::shared_ptr<Target> target, Form form) : target_(std::move(target)), form_(form) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
    const Call call{*target_, form_, op, stack};
    const auto refusal = run(call);
    if (!refusal) return;
    if (target_->kind == Target::Kind::composite) {
      take_apart(op, stack);
    } else {
      run_on_host(op, stack, refusal->reason);
    }
  }

 private:
  static std::optional<Refusal> run(const Call& call) {
    switch (call.target.kind) {
      case Target::Kind::pointwise:
        return run_pointwise(call);
      case Target::Kind::update:
        return run_update(call);
      case Target::Kind::joined:
        return run_joined(call);
      default:
        return run_whole(call);
    }
  }

  std::shared_ptr<Target> target_;
  Form form_;
};

// ---- the forms of an operator

bool same_arguments(c10::ArrayRef<c10::Argument> a, c10::ArrayRef<c10::Argument> b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const c10::Argument& x, const c10::Argument& y) { return *x.real_type() == *y.real_type(); });
}

// `form` takes the arguments of `functional`, and behind them tensors for the results.
bool is_out_form(const c10::FunctionSchema& form, const c10::FunctionSchema& functional) {
  const c10::ArrayRef<c10::Argument> arguments = form.arguments();
  const size_t inputs = functional.arguments().size(), outputs = functional.returns().size();
  if (arguments.size() != inputs + outputs ||
      !same_arguments(arguments.slice(0, inputs), functional.arguments())) {
    return false;
  }
  const auto last = arguments.slice(inputs);
  return std::all_of(last.begin(), last.end(), [](const c10::Argument& a) { return a.is_out(); });
}

using Overloads = std::multimap<std::string, c10::OperatorHandle>;

Overloads all_overloads() {
  Overloads overloads;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (const auto op = dispatcher.findSchema(name)) overloads.emplace(name.name, *op);
  }
  return overloads;
}

std::vector<std::pair<c10::OperatorHandle, Form>> forms_of(const c10::OperatorHandle& op,
                                                           const Overloads& all) {
  std::vector<std::pair<c10::OperatorHandle, Form>> forms = {{op, Form::functional}};
  const auto& schema = op.schema();
  const auto [in_place, in_place_end] = all.equal_range(schema.name() + "_");
  for (auto it = in_place; it != in_place_end; ++it) {
    const bool same_name = it->second.schema().overload_name() == schema.overload_name();
    if (same_name && same_arguments(it->second.schema().arguments(), schema.arguments())) {
      forms.emplace_back(it->second, Form::in_place);
    }
  }
  const auto [out, out_end] = all.equal_range(schema.name());
  for (auto it = out; it != out_end; ++it) {
    if (is_out_form(it->second.schema(), schema)) forms.emplace_back(it->second, Form::out);
  }
  return forms;
}

// ---- registration

// `aten.add.Tensor` as the dispatcher names it.
c10::OperatorHandle find(const std::string& name) {
  const size_t first = name.find('.'), second = name.find('.', first + 1);
  const std::string overload = second == std::string::npos ? "" : name.substr(second + 1);
  const std::string base = name.substr(0, first) + "::" + name.substr(first + 1, second - first - 1);
  return c10::Dispatcher::singleton().findSchemaOrThrow(base.c_str(),
                                                        overload == "default" ? "" : overload.c_str());
}

Target::Kind kind_of(const std::string& name) {
  static const std::map<std::string, Target::Kind> kinds = {
      {"pointwise", Target::Kind::pointwise}, {"product", Target::Kind::product},
      {"whole", Target::Kind::whole},         {"update", Target::Kind::update},
      {"composite", Target::Kind::composite}, {"joined", Target::Kind::joined},
  };
  return kinds.at(name);
}

torch::Library& library(const std::string& name, c10::DispatchKey key) {
  static auto* const libraries = new std::map<std::pair<std::string, c10::DispatchKey>, torch::Library>;
  const auto [found, made] =
      libraries->try_emplace({name, key}, torch::Library::IMPL, name, key, __FILE__, __LINE__);
  return found->second;
}

// PyTorch makes the other forms of these.
bool has_form(Target::Kind kind, Form form) {
  return form == Form::functional ||
         (kind != Target::Kind::composite && (kind != Target::Kind::update || form == Form::in_place));
}

void implement(const c10::OperatorHandle& op, Form form, const std::shared_ptr<Target>& target) {
  const auto name = op.operator_name();
  const std::string space(*name.getNamespace());
  const std::string local = c10::toString(name).substr(space.size() + 2);
  library(space, c10::DispatchKey::PrivateUse1)
      .impl(local.c_str(), torch::CppFunction::makeFromBoxedKernel(
                               c10::BoxedKernel::makeFromFunctor(std::make_unique<Kernel>(target, form))));
  if (target->kind == Target::Kind::composite) {
    library(space, c10::DispatchKey::AutogradPrivateUse1)
        .impl(local.c_str(), torch::CppFunction::makeFromBoxedFunction<&composite_autograd>());
  } else if (space != "aten") {
    library(space, c10::DispatchKey::Autograd)
        .impl(local.c_str(), torch::CppFunction::makeFromBoxedFunction<&no_gradient>());
  }
}

}  // namespace

void register_operators(const std::vector<NativeOperator>& operators) {
  static auto* const targets = new std::map<std::string, std::shared_ptr<Target>>;
  const Overloads all = all_overloads();
  for (const auto& [name, target_name, kind] : operators) {
    auto& target = (*targets)[target_name];
    if (target == nullptr) target = std::make_shared<Target>(target_name, find(target_name), kind_of(kind));
    for (const auto& [op, form] : forms_of(find(name), all)) {
      if (has_form(target->kind, form)) implement(op, form, target);
    }
  }
}

}  // namespace opennpu::torch_device
