// Operators that run on the host: counted by name, warned about once, an error in strict mode; but for
// those whose place is the host, which are counted apart.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <map>
#include <string>
#include <vector>

namespace opennpu::torch_device {

// Runs the operator on the host. `reason` says why it does not run on the chip.
// Throws PyTorch's errors for wrong arguments, else NotImplementedError: in strict mode, before anything is
// computed, and for operators that make views.
void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack, const std::string& reason);

// Counts a call of `name` that the host does; warns or throws as above.
void count_fallback(const std::string& name, const std::string& reason);

struct Fallback {
  int64_t calls = 0;
  std::string reason;  // of the last one
};

// By name, since the start or the last reset.
std::map<std::string, Fallback> fallbacks();
void reset_fallbacks();

// The operators whose place is the host, such as `aten::sort`, whatever their overloads.
void allow_on_host(const std::vector<std::string>& names);

// Their calls by name, since the start or the last reset of the fallbacks.
std::map<std::string, int64_t> host_calls();

bool strict();
void set_strict(bool strict);

}  // namespace opennpu::torch_device
