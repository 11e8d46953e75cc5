#include "python_recipe.h"

#include <unordered_map>

namespace opennpu::torch_device {

namespace {

namespace py = pybind11;

Extent to_extent(const py::handle& terms) {
  Extent extent;
  for (const py::handle term : terms)
    extent.push_back({field<int64_t>(term, 0), field<std::vector<int>>(term, 1)});
  return extent;
}

Measure to_measure(const py::handle& measure) {
  return {field<int>(measure, 0), field<bool>(measure, 1), field<int>(measure, 2)};
}

Recipe::Kind to_kind(const std::string& kind) {
  static const std::unordered_map<std::string, Recipe::Kind> kinds = {
      {"input", Recipe::Kind::input},   {"output", Recipe::Kind::output},
      {"symbol", Recipe::Kind::symbol}, {"workspace", Recipe::Kind::workspace},
      {"kv", Recipe::Kind::kv},
  };
  return kinds.at(kind);
}

}  // namespace

Recipe to_recipe(const py::handle& python) {
  Recipe recipe;
  for (const py::handle s : python.attr("symbols"))
    recipe.symbols.push_back({field<int64_t>(s, 0), field<int64_t>(s, 1)});
  for (const py::handle b : python.attr("binds")) {
    recipe.binds.push_back({to_measure(field<py::tuple>(b, 0)), field<int>(b, 1),
                            to_extent(field<py::tuple>(b, 2)), to_extent(field<py::tuple>(b, 3))});
  }
  for (const py::handle c : python.attr("checks")) {
    recipe.checks.push_back({to_measure(field<py::tuple>(c, 0)), to_extent(field<py::tuple>(c, 1))});
  }
  for (const py::handle o : python.attr("outputs")) {
    Recipe::Output output{field<at::ScalarType>(o, 0), {}};
    for (const py::handle extent : field<py::tuple>(o, 1)) output.shape.push_back(to_extent(extent));
    recipe.outputs.push_back(std::move(output));
  }
  for (const py::handle a : python.attr("arguments")) {
    recipe.arguments.push_back(
        {to_kind(field<std::string>(a, 0)), field<int>(a, 1), to_extent(field<py::tuple>(a, 2))});
  }
  recipe.kv = python.attr("kv").cast<std::vector<int>>();
  return recipe;
}

}  // namespace opennpu::torch_device
