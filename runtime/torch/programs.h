// The compiled programs of an operator, by what its calls depend on. What is not there yet is compiled,
// in Python; nothing else here takes Python's lock.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "key.h"
#include "operator.h"

namespace opennpu::torch_device {

// Why a call is not for the chip.
struct Refusal {
  std::string reason;
};

// A map that only grows, for many readers.
template <typename Value>
class KeyMap {
 public:
  Value* find(const Key& key) {
    const std::shared_lock lock(mutex_);
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : found->second.get();
  }

  // What lies at the key: `value`, unless another thread was first.
  Value& add(const Key& key, std::unique_ptr<Value> value) {
    const std::unique_lock lock(mutex_);
    return *values_.try_emplace(key, std::move(value)).first->second;
  }

 private:
  std::shared_mutex mutex_;
  std::unordered_map<Key, std::unique_ptr<Value>, Key::Hash> values_;
};

// What the compiler is told of a call. Tensors among `inputs`, and numbers where `op` takes a tensor,
// are the operands in their order.
struct Request {
  const std::string& target;  // as in the conversion table
  const c10::OperatorHandle& op;
  c10::ArrayRef<c10::IValue> inputs;
  const Operands& operands;
  c10::ArrayRef<Operand> outputs;                 // those that exist already; empty: none
  std::function<std::optional<Refusal>()> check;  // what speaks against the arguments, before compiling
};

struct Fitting {
  const Program* program;  // lives for ever
  Numbers symbols;
};

// The programs for one key.
class Programs {
 public:
  // The program for `measured`: operands, and outputs that exist already. Compiles the request when
  // there is none.
  std::variant<Fitting, Refusal> get(DeviceIndex index, const Operands& measured, const Request& request);

 private:
  struct Refused {
    Numbers sizes;
    std::string reason;
  };

  std::optional<std::variant<Fitting, Refusal>> known(const Operands& measured);

  std::shared_mutex mutex_;
  std::vector<std::unique_ptr<const Program>> programs_;  // by number, as in the compile cache
  std::vector<Refused> refused_;
};

}  // namespace opennpu::torch_device
