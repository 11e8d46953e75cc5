#include "programs.h"

#include "python_recipe.h"

namespace opennpu::torch_device {

namespace {

namespace py = pybind11;

// Takes a Python lock; the interpreter's own must be held.
class Locked {
 public:
  explicit Locked(py::object lock) : lock_(std::move(lock)) { lock_.attr("acquire")(); }
  ~Locked() { lock_.attr("release")(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  py::object lock_;
};

// ---- a request, in Python

py::tuple to_python(const Numbers& numbers) {
  return py::tuple(py::cast(std::vector<int64_t>(numbers.begin(), numbers.end())));
}

py::object to_python(const Operand& operand, const py::module_& module) {
  py::object strides = py::none();
  if (!row_major(operand.sizes, operand.strides)) strides = to_python(operand.strides);
  return module.attr("TensorSpec")(operand.tensor.scalar_type(), to_python(operand.sizes), strides);
}

class Arguments {
 public:
  Arguments(const Request& request, const py::module_& module)
      : operand_(request.operands.begin()), module_(module) {
    const auto& declared = request.op.schema().arguments();
    for (size_t i = 0; i < request.inputs.size(); ++i) {
      py::object value = convert(request.inputs[i], declared[i]);
      if (declared[i].kwarg_only()) {
        keywords[py::str(declared[i].name())] = std::move(value);
      } else {
        positional.append(std::move(value));
      }
    }
  }

  py::list positional;
  py::dict keywords;

 private:
  py::object convert(const c10::IValue& value, const c10::Argument& declared) {
    const c10::Type& type = *declared.real_type();
    const auto* optional = type.castRaw<c10::OptionalType>();
    const c10::TypeKind kind = optional == nullptr ? type.kind() : optional->getElementType()->kind();
    if (value.isScalar() && kind == c10::TypeKind::TensorType) return next();
    if (value.isInt() && kind == c10::TypeKind::ScalarTypeType) {
      return py::cast(static_cast<at::ScalarType>(value.toInt()));
    }
    return convert(value);
  }

  py::object convert(const c10::IValue& value) {
    if (value.isTensor()) return value.toTensor().defined() ? next() : py::none();
    if (value.isBool()) return py::bool_(value.toBool());
    if (value.isInt()) return py::int_(value.toInt());
    if (value.isDouble()) return py::float_(value.toDouble());
    if (value.isString()) return py::str(value.toStringRef());
    if (!value.isList()) return py::none();  // a device is the compiler's to choose
    py::list items;
    for (const c10::IValue& item : value.toListRef()) items.append(convert(item));
    return items;
  }

  py::object next() { return to_python(*operand_++, module_); }

  const Operand* operand_;
  const py::module_& module_;
};

struct Numbered {
  std::unique_ptr<const Program> program;
  bool compiled;  // for this request; else it was in the compile cache and may be for others
};

// The program of this number for requests of this kind. Python's lock must be held.
std::variant<Numbered, Refusal> program_of(const py::module_& module, DeviceIndex index,
                                           const Request& request, size_t number) {
  const Arguments arguments(request, module);
  py::list outputs;
  for (const Operand& output : request.outputs) outputs.append(to_python(output, module));
  const py::object answer =
      module.attr("compile_call")(request.target, arguments.positional, arguments.keywords, outputs, number);
  if (py::isinstance<py::str>(answer)) return Refusal{answer.cast<std::string>()};
  Recipe recipe = to_recipe(field<py::object>(answer, 1));
  if (recipe.outputs.size() != request.op.schema().returns().size()) {
    return Refusal{"not all of its results can be computed on the chip"};
  }
  return Numbered{std::make_unique<const Program>(index, field<std::string>(answer, 0), std::move(recipe)),
                  field<bool>(answer, 2)};
}

Numbers sizes_of(const Operands& operands) {
  Numbers sizes;
  for (const Operand& operand : operands) sizes.append(operand.sizes.begin(), operand.sizes.end());
  return sizes;
}

bool at_least(const Numbers& sizes, const Numbers& bounds) {
  return std::equal(sizes.begin(), sizes.end(), bounds.begin(), bounds.end(), std::greater_equal<>());
}

}  // namespace

std::variant<Fitting, Refusal> Programs::get(DeviceIndex index, const Operands& measured,
                                             const Request& request) {
  if (auto found = known(measured)) return *std::move(found);
  if (auto refusal = request.check()) return *std::move(refusal);

  const py::gil_scoped_acquire gil;
  const auto module = py::module_::import("opennpu.runtime.torch_device.operators");
  const Locked locked(module.attr("compiling"));
  if (auto found = known(measured)) return *std::move(found);  // by another thread, meanwhile
  std::optional<Refusal> refusal;
  while (!refusal) {
    auto answer = program_of(module, index, request, programs_.size());
    const std::unique_lock lock(mutex_);
    if (auto* numbered = std::get_if<Numbered>(&answer)) {
      const Program* program = programs_.emplace_back(std::move(numbered->program)).get();
      if (auto symbols = program->bind(measured)) return Fitting{program, *std::move(symbols)};
      if (numbered->compiled) refusal = Refusal{"its program is for other extents than it was compiled for"};
    } else {
      refusal = std::get<Refusal>(std::move(answer));
    }
  }
  const std::unique_lock lock(mutex_);
  refused_.push_back({sizes_of(measured), refusal->reason});
  return *std::move(refusal);
}

// A refusal holds for all sizes that are not smaller; after some, for all.
std::optional<std::variant<Fitting, Refusal>> Programs::known(const Operands& measured) {
  constexpr size_t kTries = 8;
  const std::shared_lock lock(mutex_);
  for (const auto& program : programs_) {
    if (auto symbols = program->bind(measured)) return Fitting{program.get(), *std::move(symbols)};
  }
  if (refused_.empty()) return std::nullopt;
  const Numbers sizes = sizes_of(measured);
  for (const Refused& refused : refused_) {
    if (refused_.size() >= kTries || at_least(sizes, refused.sizes)) return Refusal{refused.reason};
  }
  return std::nullopt;
}

}  // namespace opennpu::torch_device
