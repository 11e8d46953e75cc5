// Operators that work element by element, and copies: TensorIterator broadcasts, reorders and merges
// the dimensions, so that one program does for all calls whose tensors lie in memory alike.
#include <ATen/TensorIterator.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/library.h>

#include "call.h"
#include "constants.h"
#include "copies.h"
#include "dispatch.h"
#include "fallback.h"

namespace opennpu::torch_device {

namespace {

const std::string kMaskedFill = "aten.masked_fill.Tensor";

// The operands of a call in their order, and what their dtypes say.
struct Gathered {
  struct Item {
    at::Tensor tensor;
    bool number;  // on the host, without dimensions
  };

  c10::SmallVector<Item, 4> items;
  Key key;
  CommonDevice device;
};

bool takes_tensor(const c10::Argument& declared) {
  return declared.real_type()->isSubtypeOf(*c10::OptionalType::ofTensor());
}

void gather_tensor(Gathered& gathered, const at::Tensor& t) {
  const bool number = t.device().is_cpu() && t.dim() == 0;
  if (!number) gathered.device.add(t);
  const uint64_t rank = t.dim() > 0 ? 1 : t.unsafeGetTensorImpl()->is_wrapped_number() ? 2 : 0;
  gathered.key.add(static_cast<uint64_t>(t.scalar_type()) << 8 | rank << 1 | number);
  gathered.items.push_back({t, number});
}

// Nothing when an argument cannot be part of a key.
std::optional<Gathered> gather(const Call& call) {
  std::optional<Gathered> gathered(std::in_place);
  gathered->key.add(static_cast<uint64_t>(call.form));
  const auto& declared = call.target.op.schema().arguments();
  const auto inputs = call.inputs();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const c10::IValue& value = inputs[i];
    if (value.isTensor() && value.toTensor().defined()) {
      gather_tensor(*gathered, value.toTensor());
    } else if (value.isScalar() && takes_tensor(declared[i])) {
      at::Tensor number = at::scalar_tensor(value.toScalar(), value.toScalar().type());
      number.unsafeGetTensorImpl()->set_wrapped_number(true);
      gather_tensor(*gathered, number);
    } else if (!gathered->key.add(value.isTensor() ? c10::IValue() : value)) {
      return std::nullopt;
    }
  }
  for (const c10::IValue& out : call.outputs()) {
    gathered->device.add(out.toTensor());
    gathered->key.add(static_cast<uint64_t>(out.toTensor().scalar_type()));
  }
  gathered->key.add(static_cast<uint64_t>(gathered->device.index()));
  return gathered;
}

// What PyTorch's CPU device objects to and its meta implementation may not.
std::optional<Refusal> refuse_types(const Call& call, at::ScalarType result) {
  for (const c10::IValue& out : call.outputs()) {
    const at::ScalarType given = out.toTensor().scalar_type();
    if (!c10::canCast(result, given)) {
      return Refusal{c10::str("result type ", c10::toString(result),
                              " can't be cast to the desired output type ", c10::toString(given))};
    }
  }
  if (c10::isFloatingType(result)) return std::nullopt;
  if (call.target.name == "aten.silu") return Refusal{"it is for floating-point numbers"};
  if (call.target.name == "aten.pow.Tensor_Scalar") {
    const at::Scalar power = call.inputs()[1].toScalar();
    if (power.isIntegral(false) && power.toLong() < 0) return Refusal{"an integer to a negative power"};
  }
  return std::nullopt;
}

// A refusal here may be for sizes or values, and is not to be kept; that in Typing is for the dtypes.
std::variant<std::unique_ptr<Typing>, Refusal> type_of(const Call& call, const Gathered& gathered) {
  auto typing = std::make_unique<Typing>();
  const auto results = infer(call.op, torch::jit::last(*call.stack, call.op.schema().arguments().size()));
  std::vector<c10::IValue> inputs;  // as the functional form takes them
  at::native::ResultTypeState types = {};
  auto item = gathered.items.begin();
  for (const c10::IValue& value : call.inputs()) {
    const bool operand =
        (value.isTensor() && value.toTensor().defined()) ||
        (value.isScalar() && takes_tensor(call.target.op.schema().arguments()[inputs.size()]));
    inputs.push_back(operand ? c10::IValue((item++)->tensor) : value);
    if (operand) types = at::native::update_result_type_state(std::prev(item)->tensor, types);
  }
  typing->common = at::native::result_type(types);
  const auto functional = call.form == Form::functional ? results : infer(call.target.op, inputs);
  for (const auto* inferred : {&results, &functional}) {
    if (const auto* refusal = std::get_if<Refusal>(inferred)) return *refusal;
  }
  typing->result = std::get<0>(functional).front().scalar_type();
  bool numbers = false;
  if (call.target.name == kMaskedFill) typing->common = typing->result;
  std::optional<Refusal> refusal = refuse_dtype(typing->result);
  for (const auto& [tensor, number] : gathered.items) {
    numbers |= number;
    if (!number && !refusal) refusal = refuse_dtype(tensor.scalar_type());
  }
  if (numbers && !refusal) refusal = refuse_dtype(typing->common);
  if (!refusal) refusal = refuse_types(call, typing->result);
  if (refusal) typing->refusal = refusal->reason;
  return typing;
}

// A number among the operands, on the chip. What is filled in must fit its dtype, else PyTorch's error.
Operand number_operand(const Call& call, const Typing& typing, const at::Tensor& number, DeviceIndex index) {
  const bool filled_in = call.target.name == kMaskedFill;
  const at::Tensor value = filled_in ? at::scalar_tensor(number.item(), typing.common) : number;
  return Operand(constant(value, typing.common, index));
}

// The operand with the iterator's dimensions, the last one innermost.
Operand merged(const at::TensorIterator& iterator, int position) {
  const at::Tensor& tensor = iterator.tensor(position);
  if (iterator.ndim() == 0) return Operand(tensor);
  if (iterator.numel() == 1) return {tensor, {1}, {1}};
  Numbers sizes(iterator.shape().rbegin(), iterator.shape().rend());
  Numbers strides;
  const auto bytes = iterator.strides(position);
  for (size_t i = bytes.size(); i-- > 0;) strides.push_back(bytes[i] / tensor.element_size());
  return {tensor, std::move(sizes), std::move(strides)};
}

// An operand of the same kind for the compiler, the same for all sizes: then the program is found
// again by other processes, and one of one element is no other than one of several.
Operand typical(const Operand& operand) {
  constexpr int64_t kSize = 16, kStride = 1 << 20;
  Numbers sizes, strides(operand.strides.size());
  for (size_t i = 0; i < operand.sizes.size(); ++i) sizes.push_back(kSize + static_cast<int64_t>(i));
  int64_t packed = 1;
  const bool dense = row_major(operand.sizes, operand.strides);
  for (size_t i = sizes.size(); i-- > 0; packed *= sizes[i]) {
    const int64_t stride = operand.strides[i];
    strides[i] = dense ? packed : stride < 2 ? stride : kStride + static_cast<int64_t>(i);
  }
  return {operand.tensor, std::move(sizes), std::move(strides)};
}

// Queues target(operands) → out, whose dimensions are merged.
std::optional<Refusal> launch(KeyMap<Programs>& table, DeviceIndex index, const std::string& target,
                              const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> inputs,
                              const Operands& operands, const Operand& out) {
  Operands measured = operands, examples;
  measured.push_back(out);
  Key key;
  for (const Operand& operand : measured) {
    examples.push_back(typical(operand));
    key.add(operand.tensor.scalar_type(), examples.back().sizes, examples.back().strides);
  }
  key.add(static_cast<uint64_t>(index));
  Programs* programs = table.find(key);
  if (programs == nullptr) programs = &table.add(key, std::make_unique<Programs>());
  const Operand out_example = examples.pop_back_val();
  const auto found = programs->get(index, measured,
                                   {target, op, inputs, examples, out_example, [] { return std::nullopt; }});
  if (const auto* refusal = std::get_if<Refusal>(&found)) return *refusal;
  const auto& [program, symbols] = std::get<Fitting>(found);
  program->launch(symbols, operands, out);
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> run_pointwise(const Call& call) {
  const auto gathered = gather(call);
  if (!gathered) return Refusal{"an argument of it is nothing to compile for"};
  Typing* typing = call.target.typings.find(gathered->key);
  if (typing == nullptr) {
    auto found = type_of(call, *gathered);
    if (const auto* refusal = std::get_if<Refusal>(&found)) return *refusal;
    typing = &call.target.typings.add(gathered->key, std::get<0>(std::move(found)));
  }
  if (!typing->refusal.empty()) return Refusal{typing->refusal};

  const at::Tensor given = call.form == Form::functional ? at::Tensor() : call.outputs()[0].toTensor();
  const bool direct = !given.defined() || given.scalar_type() == typing->result;
  const at::Tensor result = direct ? given : at::Tensor();
  at::TensorIteratorConfig config;
  config.check_all_same_dtype(false).declare_static_dtype_and_device(typing->result,
                                                                     gathered->device.device());
  config.add_output(result);
  for (const auto& [tensor, number] : gathered->items) {
    if (!number) config.add_const_input(tensor);
  }
  const at::TensorIterator iterator = config.build();
  if (iterator.numel() > 0) {
    Operands operands;
    int position = 1;
    for (const auto& [tensor, number] : gathered->items) {
      if (number) {
        operands.push_back(number_operand(call, *typing, tensor, gathered->device.index()));
      } else if (tensor.dim() == 0) {
        operands.push_back(Operand(tensor)), ++position;
      } else {
        operands.push_back(merged(iterator, position++));
      }
    }
    if (auto refusal = launch(typing->programs, gathered->device.index(), call.target.name, call.target.op,
                              call.inputs(), operands, merged(iterator, 0))) {
      return refusal;
    }
  }
  call.finish({iterator.output(0)});
  return std::nullopt;
}

// ---- copies

namespace {

// What moves the bytes of a dtype that the chip does not have.
std::optional<at::ScalarType> carrier(at::ScalarType dtype) {
  switch (c10::elementSize(dtype)) {
    case 1:
      return at::kChar;
    case 2:
      return at::kBFloat16;
    case 4:
      return at::kInt;
    case 8:
      return at::kLong;
    default:
      return std::nullopt;
  }
}

std::optional<Refusal> try_copy(at::Tensor dst, at::Tensor src) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::_to_copy", "");
  static const std::string name = "aten._to_copy";
  static KeyMap<Programs> table;
  if (dst.is_conj() != src.is_conj() || dst.is_neg() != src.is_neg()) {
    return Refusal{"it conjugates or negates on the way"};
  }
  if (dst.scalar_type() == src.scalar_type() && refuse_dtype(dst.scalar_type())) {
    const auto bytes = carrier(dst.scalar_type());
    if (!bytes) return Refusal{"its elements are larger than those of any dtype of the chip"};
    dst = dst.view(*bytes), src = src.view(*bytes);
  }
  for (const at::Tensor& t : {dst, src}) {
    if (auto refusal = refuse_dtype(t.scalar_type())) return refusal;
  }
  at::TensorIteratorConfig config;
  config.check_all_same_dtype(false).resize_outputs(false).add_output(dst).add_const_input(src);
  const at::TensorIterator iterator = config.build();
  if (iterator.numel() == 0) return std::nullopt;
  const c10::IValue arguments[] = {src, static_cast<int64_t>(dst.scalar_type())};
  return launch(table, dst.get_device(), name, op, arguments, {merged(iterator, 1)}, merged(iterator, 0));
}

}  // namespace

void copy_by_program(const at::Tensor& dst, const at::Tensor& src) {
  const auto refusal = try_copy(dst, src);
  if (!refusal) return;
  count_fallback("aten::copy_", refusal->reason);
  copy_by_host(dst, src);
}

// ---- filling: copies of a constant

namespace {

at::Tensor& fill(at::Tensor& dst, const at::Scalar& value) {
  if (dst.numel() > 0) {
    const at::Tensor number = at::scalar_tensor(value, dst.scalar_type());
    copy_by_program(dst, constant(number, dst.scalar_type(), dst.get_device()).expand(dst.sizes()));
  }
  return dst;
}

at::Tensor& fill_tensor(at::Tensor& dst, const at::Tensor& value) {
  TORCH_CHECK(value.dim() == 0, "fill_ only supports 0-dimension value tensor but got tensor with ",
              value.dim(), " dimensions.");
  return value.device() == dst.device() ? dst.copy_(value.expand(dst.sizes())) : fill(dst, value.item());
}

at::Tensor& zero(at::Tensor& dst) { return fill(dst, 0); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("fill_.Scalar", fill);
  m.impl("fill_.Tensor", fill_tensor);
  m.impl("zero_", zero);
}

}  // namespace

}  // namespace opennpu::torch_device
