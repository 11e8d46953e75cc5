// The part of the module that is about operators and fallbacks.
#include <torch/csrc/utils/pybind.h>

#include "dispatch.h"
#include "fallback.h"

namespace opennpu::torch_device {

namespace py = pybind11;

void bind_operators(const py::handle& module) {
  auto m = py::reinterpret_borrow<py::module_>(module);
  m.def("register_operators",
        [](const std::vector<std::tuple<std::string, std::string, std::string>>& lines) {
          std::vector<NativeOperator> operators;
          for (const auto& [name, target, kind] : lines) operators.push_back({name, target, kind});
          register_operators(operators);
        });
  m.def("fallbacks", [] {
    py::dict calls, reasons;
    for (const auto& [name, fallback] : fallbacks()) {
      calls[py::str(name)] = fallback.calls;
      reasons[py::str(name)] = fallback.reason;
    }
    return py::make_tuple(calls, reasons);
  });
  m.def("allow_on_host", &allow_on_host);
  m.def("host_calls", &host_calls);
  m.def("reset_fallbacks", &reset_fallbacks);
  m.def("is_strict", &strict);
  m.def("set_strict", &set_strict);
}

}  // namespace opennpu::torch_device
