// Loads into scratchpad that have not been copied yet.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "bounds.h"

namespace opennpu::native {

// A dense load from HBM that nothing writes during the launch is remembered instead of copied: the matrix
// unit then reads the tile where it lies. The copy is made up for as soon as anything else looks at the
// scratchpad bytes, so a program sees no difference.
class Pending {
 public:
  void reset() { count_ = 0; }
  bool empty() const { return count_ == 0; }

  // The scratchpad bytes `to` hold the HBM bytes at `from`. before_write(to) comes first.
  void add(const Extent& to, const std::byte* from, std::byte* spm);

  // The HBM bytes that all of `extent` stands for; nullptr when it is not part of one load.
  const std::byte* find(const Extent& extent) const;

  // Makes up for the copies that `extent` meets.
  void before_read(const Extent& extent, std::byte* spm);

  // Forgets what `extent` overwrites if the `whole` of it is written, and makes up for the rest of what it
  // meets.
  void before_write(const Extent& extent, bool whole, std::byte* spm);

 private:
  struct Load {
    Extent to;
    const std::byte* from;
  };
  void remove(size_t i) { std::copy(loads_.data() + i + 1, loads_.data() + count_--, loads_.data() + i); }
  void copy(size_t i, std::byte* spm);

  std::array<Load, 32> loads_;  // disjoint, the oldest first; more than a kernel's buffers
  size_t count_ = 0;
};

}  // namespace opennpu::native
