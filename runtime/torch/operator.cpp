#include "operator.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "allocator.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

constexpr int64_t kLargestPage = 128;  // tokens; every page size divides it (docs/architecture.md)

int64_t value(const Extent& extent, const Numbers& symbols) {
  int64_t sum = 0;
  for (const Term& term : extent) {
    int64_t product = term.coefficient;
    for (const int symbol : term.symbols) product *= symbols[symbol];
    sum += product;
  }
  return sum;
}

int64_t measured(const Measure& measure, const Operands& operands) {
  const Operand& operand = operands[measure.operand];
  return (measure.stride ? operand.strides : operand.sizes)[measure.dim];
}

// From the first to the last byte of the operand's elements.
uint64_t span(const Operand& operand) {
  int64_t last = 0;
  for (size_t i = 0; i < operand.sizes.size(); ++i) {
    if (operand.sizes[i] == 0) return 0;
    last += (operand.sizes[i] - 1) * operand.strides[i];
  }
  return static_cast<uint64_t>(last + 1) * operand.tensor.itemsize();
}

npu_address address(const at::Tensor& tensor) { return address_of(tensor.const_data_ptr()); }

npu_arg buffer(const Operand& operand) { return {NPU_ARG_BUFFER, address(operand.tensor), span(operand)}; }

npu_arg scalar(int64_t number) { return {NPU_ARG_SCALAR, static_cast<uint64_t>(number), 0}; }

// A buffer of no bytes has no address, but a launch wants one: that of any other.
void give_addresses(c10::SmallVectorImpl<npu_arg>& arguments) {
  const auto without_bytes = [](const npu_arg& a) { return a.kind == NPU_ARG_BUFFER && a.bytes == 0; };
  const auto other = std::find_if(arguments.begin(), arguments.end(),
                                  [](const npu_arg& a) { return a.kind == NPU_ARG_BUFFER && a.bytes != 0; });
  if (other == arguments.end()) return;
  const npu_address anywhere = other->value;
  std::replace_if(arguments.begin(), arguments.end(), without_bytes, npu_arg{NPU_ARG_BUFFER, anywhere, 0});
}

// What the launch arguments of KV pages ask of the two tensors.
void check_pages(const at::Tensor& k, const at::Tensor& v) {
  const int64_t page_size = k.size(-3);
  TORCH_CHECK_VALUE(page_size > 0 && kLargestPage % page_size == 0, "pages of ", page_size,
                    " tokens: the page size of k_cache and v_cache must divide ", kLargestPage);
  for (int64_t dim = 0; dim < k.dim() - 1; ++dim) {
    TORCH_CHECK_VALUE(k.size(dim) == 1 || k.stride(dim) == v.stride(dim),
                      "k_cache and v_cache must have the same strides, not ", k.strides(), " and ",
                      v.strides());
  }
  TORCH_CHECK_VALUE(k.stride(-1) == 1 && v.stride(-1) == 1,
                    "the elements of a head must lie side by side in k_cache and v_cache");
}

}  // namespace

Program::Program(DeviceIndex index, std::string_view image, Recipe recipe)
    : index_(index), recipe_(std::move(recipe)) {
  const Chip& open = chip(index);
  check(open.driver->program_load(open.device, image.data(), image.size(), &program_));
}

Program::~Program() {
  if (!in_bad_fork()) chip(index_).driver->program_unload(program_);
}

std::optional<Numbers> Program::bind(const Operands& operands) const {
  Numbers symbols(recipe_.symbols.size());
  for (const Recipe::Bind& bind : recipe_.binds) {
    const int64_t rest = measured(bind.measure, operands) - value(bind.constant, symbols);
    const int64_t slope = value(bind.slope, symbols);
    if (slope == 0 || rest % slope != 0) return std::nullopt;
    const int64_t symbol = rest / slope;
    const auto [least, most] = recipe_.symbols[bind.symbol];
    if (symbol < least || (most != -1 && symbol > most)) return std::nullopt;
    symbols[bind.symbol] = symbol;
  }
  for (const Recipe::Check& check : recipe_.checks) {
    if (measured(check.measure, operands) != value(check.extent, symbols)) return std::nullopt;
  }
  return symbols;
}

std::vector<at::Tensor> Program::allocate(const Numbers& symbols) const {
  std::vector<at::Tensor> outputs;
  outputs.reserve(recipe_.outputs.size());
  const c10::Device device(kType, index_);
  for (const Recipe::Output& output : recipe_.outputs) {
    Numbers shape;
    for (const Extent& extent : output.shape) shape.push_back(value(extent, symbols));
    outputs.push_back(at::empty(shape, at::TensorOptions(device).dtype(output.dtype)));
  }
  return outputs;
}

void Program::launch(const Numbers& symbols, const Operands& inputs, c10::ArrayRef<Operand> outputs) const {
  c10::SmallVector<npu_arg, 16> arguments;
  c10::DataPtr workspace;  // given back behind the launch, in the order of the stream
  for (const Recipe::Argument& argument : recipe_.arguments) {
    switch (argument.kind) {
      case Recipe::Kind::input:
        arguments.push_back(buffer(inputs[argument.index]));
        break;
      case Recipe::Kind::output:
        arguments.push_back(buffer(outputs[argument.index]));
        break;
      case Recipe::Kind::symbol:
        arguments.push_back(scalar(symbols[argument.index]));
        break;
      case Recipe::Kind::kv:
        arguments.push_back(kv_argument(argument.index, inputs));
        break;
      case Recipe::Kind::workspace:
        const auto bytes = static_cast<uint64_t>(value(argument.bytes, symbols));
        if (bytes != 0) workspace = torch_device::allocate(index_, bytes);
        arguments.push_back({NPU_ARG_BUFFER, address_of(workspace.get()), bytes});
    }
  }
  give_addresses(arguments);
  check(chip(index_).driver->launch(current_stream(index_), program_, arguments.data(),
                                    static_cast<uint32_t>(arguments.size())));
}

// The fields in the order of opennpu.runtime.signature.KV_FIELDS; docs/torch_device.md says what they are.
npu_arg Program::kv_argument(int field, const Operands& inputs) const {
  const at::Tensor& k = inputs[recipe_.kv[0]].tensor;
  if (field == 0) check_pages(k, inputs[recipe_.kv[1]].tensor);
  if (field < 2) return buffer(inputs[recipe_.kv[field]]);
  const auto item = static_cast<int64_t>(k.itemsize());
  const std::array<int64_t, 6> scalars = {k.dim() == 5 ? k.stride(0) * item : 0,  // layers in front
                                          k.stride(-4) * item,
                                          k.stride(-3) * item,
                                          k.stride(-2) * item,
                                          k.size(-3),
                                          k.size(-4) * k.size(-3)};
  return scalar(scalars[field - 2]);
}

}  // namespace opennpu::torch_device
