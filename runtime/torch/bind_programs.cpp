// Programs that Python launches: the parts of a graph that torch.compile made, models that a server runs.
#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "python_recipe.h"
#include "streams.h"
#include "without_gil.h"

namespace opennpu::torch_device {

namespace py = pybind11;

namespace {

class GraphProgram {
 public:
  GraphProgram(DeviceIndex index, std::string_view image, const py::handle& recipe)
      : GraphProgram(index, image, to_recipe(recipe)) {}

  // Waits: no queued launch may use a program that is unloaded.
  ~GraphProgram() {
    if (in_bad_fork()) return;
    const WithoutGil without_gil;
    try {
      wait_for_streams(device_.index());
    } catch (const std::exception& error) {
      TORCH_WARN("while a compiled graph was given up: ", error.what());
    }
  }
  GraphProgram(const GraphProgram&) = delete;
  GraphProgram& operator=(const GraphProgram&) = delete;

  // Queues the program on the current stream; the outputs are new. Inputs are used where they lie, once
  // they are row-major and on the device; KV pages with the strides that they have.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& tensors) const {
    const WithoutGil without_gil;
    Operands inputs, outputs;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const bool holds_pages = std::find(pages_.begin(), pages_.end(), i) != pages_.end();
      inputs.emplace_back(holds_pages ? tensors[i] : tensors[i].to(device_).contiguous());
    }
    const auto symbols = program_.bind(inputs);
    TORCH_CHECK(symbols, "the sizes of the tensors do not fit the compiled graph");
    std::vector<at::Tensor> results = program_.allocate(*symbols);
    for (const at::Tensor& result : results) outputs.emplace_back(result);
    program_.launch(*symbols, inputs, outputs);
    return results;
  }

 private:
  GraphProgram(DeviceIndex index, std::string_view image, Recipe recipe)
      : device_(kType, index),
        pages_(recipe.kv.begin(), recipe.kv.end()),
        program_(index, image, std::move(recipe)) {}

  c10::Device device_;
  std::vector<size_t> pages_;  // the inputs that hold KV pages
  Program program_;
};

// Chip memory that `owner` holds, as a tensor of bytes that keeps the owner alive.
at::Tensor tensor_at(DeviceIndex index, npu_address address, int64_t bytes, py::object owner) {
  const c10::Device device(kType, index);
  auto* held = new py::object(std::move(owner));
  const auto release = [held](void*) {
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire gil;
    delete held;
  };
  return at::for_blob(reinterpret_cast<void*>(address), {bytes})
      .deleter(release)
      .options(at::TensorOptions(device).dtype(at::kByte))
      .target_device(device)
      .make_tensor();
}

}  // namespace

void bind_programs(const py::handle& module) {
  py::class_<GraphProgram>(module, "GraphProgram")
      .def(py::init<DeviceIndex, std::string_view, py::handle>())
      .def("__call__", &GraphProgram::run);
  module.attr("tensor_at") = py::cpp_function(&tensor_at);
}

}  // namespace opennpu::torch_device
