// The formulas of the timing model: what one instruction costs by itself.
#pragma once

#include <array>
#include <cstdint>

#include "../bounds.h"
#include "parameters.h"

namespace opennpu::timing {

struct Cost {
  int64_t occupancy = 0;  // cycles that the unit is taken; of a transfer the least, for its descriptors
  int64_t latency = 0;    // from then until it has completed
  int64_t hbm_bytes = 0;  // moved
  int64_t hbm_work = 0;   // the same with what short bursts waste: bytes of HBM time
  int64_t macs = 0;
  int64_t row_macs = 0;  // macs · cycles a row: what the array's peak rate is measured by
};

// Contiguous stretches of HBM that one instruction reads or writes.
struct Runs {
  int64_t count, bytes;  // bytes of each
};

// The costs of one core's instructions, in the order in which it issues them: what mx_mul costs depends
// on the stationary tile. Throws Trap for an instruction that touches more than is allowed.
class CostModel {
 public:
  CostModel(const Parameters& parameters, const npu_chip_desc& chip) : p_(parameters), chip_(chip) {}

  template <typename I>
  Cost operator()(const I& op) {
    using enum isa::Formula;
    constexpr isa::Formula kFormula = I::kTiming.formula;
    if constexpr (kFormula == Transfer) {
      return transfer(hbm_runs(op));
    } else if constexpr (kFormula == Indirect) {
      return indirect(op.count, op.rows, op.row_bytes, op.row_stride);
    } else if constexpr (kFormula == Stationary) {
      return stationary(op.k, op.n, op.dtype);
    } else if constexpr (kFormula == Product) {
      return product(op.rows);
    } else {
      static_assert(kFormula == Vector, "an engine instruction needs a formula of its engine");
      return vector(op.work(), I::kTiming.passes, is_special(op));
    }
  }

 private:
  template <typename I>
  static bool is_special(const I& op) {
    if constexpr (requires { op.op; }) {
      return I::kTiming.special >> op.op & 1;
    } else {
      return I::kTiming.special != 0;
    }
  }

  static Runs hbm_runs(const isa::DmaLoad& op);
  static Runs hbm_runs(const isa::DmaStore& op);

  Cost transfer(Runs runs) const;
  Cost indirect(int64_t count, int64_t rows, int64_t row_bytes, int64_t row_stride) const;
  Cost stationary(int64_t k, int64_t n, int64_t dtype);
  Cost product(int64_t rows) const;
  template <size_t N>
  Cost vector(const std::array<int64_t, N>& extents, int64_t passes, bool special) const {
    static_assert(N == 2 || N == 3);
    return vector(elements(extents[0], extents[1], N == 3 ? extents[N - 1] : 1), passes, special);
  }
  Cost vector(int64_t elements, int64_t passes, bool special) const;

  static int64_t elements(int64_t d0, int64_t d1, int64_t d2);

  const Parameters p_;
  const npu_chip_desc& chip_;
  int64_t k_ = 0, n_ = 0, row_cycles_ = 0;  // of the stationary tile
};

}  // namespace opennpu::timing
