// The reference engine: the specification of the instruction set in plain scalar C++, bit-exact on every
// host.
#include "instructions.h"

namespace opennpu {

namespace {

class ReferenceEngine final : public Engine {
 public:
  std::unique_ptr<EngineState> make_state(const npu_chip_desc&) const override {
    return std::make_unique<reference::MatrixUnit>();
  }

#define X(NAME)                                                  \
  void execute(Core& core, const isa::NAME& op) const override { \
    check(core, op);                                             \
    reference::run(core, op);                                    \
  }
  ONPU_ENGINE_INSTRUCTIONS(X)
#undef X

 private:
  // Only mx_mul looks at the matrix unit: another engine may hand over the rest with a state of its own.
  template <class Op>
  static void check(const Core& core, const Op& op) {
    Stationary stationary;
    if constexpr (std::is_same_v<Op, isa::MxMul>) stationary = reference::matrix_unit(core).shape;
    visit_accesses(core, op, stationary, [&](const Access& access) { check_access(core, access); });
  }
};

}  // namespace

std::unique_ptr<Engine> make_reference_engine(const npu_chip_desc&) {
  return std::make_unique<ReferenceEngine>();
}

}  // namespace opennpu
