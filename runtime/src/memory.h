// The HBM of the virtual chip: one reserved region of host memory and its allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "opennpu/npu.h"

namespace opennpu {

class Memory {
 public:
  // Reserves `bytes`; pages take host memory when they are first touched. Throws Error.
  Memory(uint64_t bytes, uint64_t align);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Throws Error (INVALID_ARGUMENT for 0 bytes, OUT_OF_MEMORY).
  npu_address alloc(uint64_t bytes);
  void free(npu_address address);  // throws Error when nothing is allocated there

  // Throws Error unless the bytes lie within one allocation.
  void check(npu_address address, uint64_t bytes) const;

  uint64_t total() const { return end_ - begin_; }
  uint64_t available() const;

  // The host address of chip address 0; only what is allocated may be touched.
  std::byte* base() const { return region_; }

 private:
  uint64_t largest_free() const;

  uint64_t align_;
  uint64_t begin_, end_;  // allocatable addresses; begin_ > 0, so that 0 is no address
  std::byte* region_;
  mutable std::mutex mutex_;
  std::map<uint64_t, uint64_t> free_, used_;  // address → bytes
};

}  // namespace opennpu
