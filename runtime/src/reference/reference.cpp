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
  template <class Op>
  static void check(const Core& core, const Op& op) {
    visit_accesses(core, op, reference::matrix_unit(core).shape,
                   [&](const Access& access) { check_access(core, access); });
  }
};

}  // namespace

std::unique_ptr<Engine> make_reference_engine(const npu_chip_desc&) {
  return std::make_unique<ReferenceEngine>();
}

}  // namespace opennpu
