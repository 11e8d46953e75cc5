// Loads into scratchpad that have not been copied yet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bounds.h"

namespace opennpu::native {

// Dense loads from HBM that nothing writes during the launch, and gathers, are remembered instead of copied:
// the matrix unit then reads the tile where it lies. The copy is made up for as soon as anything else looks
// at the scratchpad bytes, or, where other instructions can write the HBM bytes, before they do: at this
// core's stores there and at barriers. So a program sees no difference.
class Pending {
 public:
  static constexpr size_t kMostRows = 512;  // of a gather

  void reset() { count_ = 0; }
  bool empty() const { return count_ == 0; }

  // The scratchpad bytes `to` hold the HBM bytes at `from`, which are constant. before_write(to) comes first.
  void add(const Extent& to, const std::byte* from, std::byte* spm);

  // They hold rows of `row_bytes` bytes, of which the caller sets where each lies; before_write(to) comes
  // first. Valid until the next call.
  std::vector<const std::byte*>& add_rows(const Extent& to, int64_t row_bytes, std::byte* spm);

  // Takes back the last add_rows.
  void forget_last() { --count_; }

  // The constant HBM bytes that all of `extent` stands for; nullptr when it is not part of one load.
  const std::byte* find(const Extent& extent) const;

  // Where rows of `bytes` bytes lie in HBM that stand `stride` bytes apart in scratchpad from `first` on,
  // within `extent`; false when they are not those of one load.
  bool find_rows(const Extent& extent, int64_t first, int64_t stride, int64_t bytes, int64_t count,
                 const std::byte** rows) const;

  // Makes up for the copies that `extent` meets.
  void before_read(const Extent& extent, std::byte* spm);

  // Forgets what `extent` overwrites if the `whole` of it is written, and makes up for the rest of what it
  // meets.
  void before_write(const Extent& extent, bool whole, std::byte* spm);

  // Makes up for the copies of what the host bytes [begin, end) of HBM give.
  void before_store(const std::byte* begin, const std::byte* end, std::byte* spm);

  // Makes up for the copies of what other cores may write from here on.
  void before_barrier(std::byte* spm);

 private:
  struct Load {
    Extent to;
    bool constant;
    int64_t row_bytes;
    std::vector<const std::byte*> rows;
  };
  Load& append(const Extent& to, bool constant, int64_t row_bytes, std::byte* spm);
  static bool drop_front(Load& load, int64_t bytes);
  void copy(size_t i, std::byte* spm);
  void remove(size_t i);

  std::array<Load, 32> loads_;  // disjoint, the oldest first; more than a kernel's buffers
  size_t count_ = 0;
};

}  // namespace opennpu::native
