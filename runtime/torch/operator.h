// A compiled operator on a chip: how tensors bind its symbols, and its launch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <optional>
#include <string_view>
#include <vector>

#include "device.h"

namespace opennpu::torch_device {

using Numbers = c10::SmallVector<int64_t, 6>;

// A tensor as a program sees it. Sizes and strides need not be those of `tensor`: merged dimensions.
struct Operand {
  explicit Operand(const at::Tensor& t) : tensor(t), sizes(t.sizes()), strides(t.strides()) {}
  Operand(const at::Tensor& t, Numbers s, Numbers st)
      : tensor(t), sizes(std::move(s)), strides(std::move(st)) {}

  at::Tensor tensor;
  Numbers sizes, strides;  // strides in elements
};

using Operands = c10::SmallVector<Operand, 4>;

// A polynomial in the symbols of a program, which are counted from 0.
struct Term {
  int64_t coefficient;
  std::vector<int> symbols;
};
using Extent = std::vector<Term>;

// A size or stride of an operand.
struct Measure {
  int operand;
  bool stride;
  int dim;
};

// How the signature of a program is followed at a launch. runtime/torch_device/operators.py makes it.
struct Recipe {
  struct Bind {  // measure = constant + slope · symbol
    Measure measure;
    int symbol;
    Extent constant, slope;
  };
  struct Check {  // measure = extent
    Measure measure;
    Extent extent;
  };
  struct Symbol {  // its range; most -1: no bound
    int64_t least, most;
  };
  struct Output {
    at::ScalarType dtype;
    std::vector<Extent> shape;
  };
  enum class Kind { input, output, symbol, workspace, kv };
  struct Argument {
    Kind kind;
    int index;     // of the operand, output, symbol or KV field
    Extent bytes;  // of the workspace
  };

  std::vector<Symbol> symbols;
  std::vector<Bind> binds;
  std::vector<Check> checks;
  std::vector<Output> outputs;
  std::vector<Argument> arguments;
  std::vector<int> kv;  // operands that hold the pages of keys and values; empty: none
};

class Program {
 public:
  // Throws with the driver's message.
  Program(DeviceIndex index, std::string_view image, Recipe recipe);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // The values of the symbols; nothing when the program is not for operands of these extents.
  std::optional<Numbers> bind(const Operands& operands) const;

  // New tensors for the outputs.
  std::vector<at::Tensor> allocate(const Numbers& symbols) const;

  // Queues the program on the current stream of its device.
  void launch(const Numbers& symbols, const Operands& inputs, c10::ArrayRef<Operand> outputs) const;

 private:
  npu_arg kv_argument(int field, const Operands& inputs) const;

  DeviceIndex index_;
  Recipe recipe_;
  npu_program program_ = nullptr;
};

}  // namespace opennpu::torch_device
