// Programs that Python launches: the parts of a graph that torch.compile made.
#include "python_recipe.h"
#include "streams.h"
#include "without_gil.h"

namespace opennpu::torch_device {

namespace py = pybind11;

namespace {

class GraphProgram {
 public:
  GraphProgram(DeviceIndex index, std::string_view image, const py::handle& recipe)
      : device_(kType, index), program_(index, image, to_recipe(recipe)) {}

  // Waits: no queued launch may use a program that is unloaded.
  ~GraphProgram() {
    const WithoutGil without_gil;
    try {
      synchronize_device(device_.index());
    } catch (const std::exception& error) {
      TORCH_WARN("while a compiled graph was given up: ", error.what());
    }
  }
  GraphProgram(const GraphProgram&) = delete;
  GraphProgram& operator=(const GraphProgram&) = delete;

  // Queues the program on the current stream; the outputs are new. Inputs are used where they lie, once
  // they are row-major and on the device.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& tensors) const {
    const WithoutGil without_gil;
    Operands inputs, outputs;
    for (const at::Tensor& tensor : tensors) inputs.emplace_back(tensor.to(device_).contiguous());
    const auto symbols = program_.bind(inputs);
    TORCH_CHECK(symbols, "the sizes of the tensors do not fit the compiled graph");
    std::vector<at::Tensor> results = program_.allocate(*symbols);
    for (const at::Tensor& result : results) outputs.emplace_back(result);
    program_.launch(*symbols, inputs, outputs);
    return results;
  }

 private:
  c10::Device device_;
  Program program_;
};

}  // namespace

void bind_programs(const py::handle& module) {
  py::class_<GraphProgram>(module, "GraphProgram")
      .def(py::init<DeviceIndex, std::string_view, py::handle>())
      .def("__call__", &GraphProgram::run);
}

}  // namespace opennpu::torch_device
