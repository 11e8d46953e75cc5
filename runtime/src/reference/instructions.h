// What each instruction does, once its accesses have been checked (footprint.h). One concern a file:
// dma.cpp, matrix.cpp, elementwise.cpp, movement.cpp, reduce.cpp, softmax.cpp.
#pragma once

#include <vector>

#include "engine.h"
#include "footprint.h"

namespace opennpu::reference {

/// The matrix unit of one core.
struct MatrixUnit : EngineState {
  Stationary shape;
  std::vector<float> tile;  // [k][n]
  void reset() override { shape = {}; }
};

inline MatrixUnit& matrix_unit(const Core& core) { return static_cast<MatrixUnit&>(*core.state); }

#define X(NAME) void run(Core& core, const isa::NAME& op);
ONPU_ENGINE_INSTRUCTIONS(X)
#undef X

}  // namespace opennpu::reference
