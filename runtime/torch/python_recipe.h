// Recipes as runtime/torch_device/operators.py tells them. Python's lock must be held.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include "operator.h"

namespace opennpu::torch_device {

template <typename T>
T field(const pybind11::handle& tuple, size_t i) {
  return pybind11::reinterpret_borrow<pybind11::tuple>(tuple)[i].cast<T>();
}

Recipe to_recipe(const pybind11::handle& python);

}  // namespace opennpu::torch_device
