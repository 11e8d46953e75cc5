// The stationary tile of the matrix unit, held in the layout that the kernels stream through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bounds.h"
#include "engine.h"
#include "kernels.h"
#include "pending.h"

namespace opennpu::native {

// A packed tile is used where it lies, in scratchpad until something writes there; every other layout is
// packed at load.
class Stationary {
 public:
  Stationary(const npu_chip_desc& chip, Turn turn);

  void reset();  // the tile of 0 × 0 that a launch starts with

  // mx_load. A pending tile is used where it lies in HBM. Throws Trap for a tile beyond the scratchpad or
  // larger than the matrix unit.
  void load(const Core& core, const isa::MxLoad& op, Pending& pending);

  // To be called before scratchpad bytes `extent` change: captures the tile if it lies there.
  void before_write(const Extent& extent);

  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  isa::Dtype dtype() const { return dtype_; }
  const std::byte* strips() const { return strips_; }
  int64_t strip_stride() const { return strip_stride_; }

 private:
  int64_t pack(const isa::MxLoad& op);
  void pack_rest(const isa::MxLoad& op, int64_t k, int64_t k_end, int64_t n, int64_t n_end);
  int64_t pack_foreign(const std::byte* source, const isa::MxLoad& op, const npu_chip_desc& chip);

  Turn turn_;
  std::vector<std::byte> own_;
  std::vector<const std::byte*> rows_;  // of the tile being packed, where each lies
  const std::byte* strips_ = nullptr;
  int64_t strip_stride_ = 0, k_ = 0, n_ = 0;
  isa::Dtype dtype_ = isa::Dtype::F32;
  Extent aliased_;  // scratchpad bytes that strips_ points into; empty when in none
};

}  // namespace opennpu::native
