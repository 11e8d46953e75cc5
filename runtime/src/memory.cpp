#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace opennpu {

namespace {

// Freed blocks of at least this size give their host memory back.
constexpr uint64_t kReturnBytes = 1 << 20;

std::string mib(uint64_t bytes) {
  char text[32];
  snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

Memory::Memory(uint64_t bytes, uint64_t align)
    : align_(align), begin_(align), end_(align + bytes / align * align) {
  void* region =
      mmap(nullptr, end_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) {
    throw Error{NPU_ERROR_OUT_OF_MEMORY,
                "the host cannot reserve " + mib(end_) + " of address space for the HBM"};
  }
  madvise(region, end_, MADV_HUGEPAGE);
  region_ = static_cast<std::byte*>(region);
  ASAN_POISON_MEMORY_REGION(region_, end_);
  free_.emplace(begin_, end_ - begin_);
}

Memory::~Memory() {
  ASAN_UNPOISON_MEMORY_REGION(region_, end_);
  munmap(region_, end_);
}

npu_address Memory::alloc(uint64_t bytes) {
  if (bytes == 0) throw Error{NPU_ERROR_INVALID_ARGUMENT, "an allocation of 0 bytes"};
  std::lock_guard lock(mutex_);
  const uint64_t size = bytes > end_ ? bytes : (bytes + align_ - 1) / align_ * align_;
  const auto block =
      std::find_if(free_.begin(), free_.end(), [&](const auto& b) { return b.second >= size; });
  if (block == free_.end()) {
    uint64_t free = 0;
    for (const auto& b : free_) free += b.second;
    throw Error{NPU_ERROR_OUT_OF_MEMORY, "out of HBM: " + mib(bytes) + " asked for, " + mib(free) + " of " +
                                             mib(total()) + " free, the largest block " +
                                             mib(largest_free())};
  }
  const auto [address, available] = *block;
  free_.erase(block);
  if (available > size) free_.emplace(address + size, available - size);
  used_.emplace(address, size);
  ASAN_UNPOISON_MEMORY_REGION(region_ + address, bytes);
  return address;
}

void Memory::free(npu_address address) {
  std::lock_guard lock(mutex_);
  const auto block = used_.find(address);
  if (block == used_.end()) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT,
                "free of HBM address " + std::to_string(address) + ", where no allocation begins"};
  }
  uint64_t begin = address, size = block->second;
  used_.erase(block);
  if (size >= kReturnBytes) madvise(region_ + begin, size, MADV_DONTNEED);
  ASAN_POISON_MEMORY_REGION(region_ + begin, size);
  auto next = free_.lower_bound(begin);
  if (next != free_.end() && next->first == begin + size) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin() && std::prev(next)->first + std::prev(next)->second == begin) {
    std::prev(next)->second += size;
  } else {
    free_.emplace(begin, size);
  }
}

void Memory::check(npu_address address, uint64_t bytes) const {
  std::lock_guard lock(mutex_);
  auto block = used_.upper_bound(address);
  if (block != used_.begin()) {
    --block;
    const uint64_t end = block->first + block->second;
    if (address <= end && bytes <= end - address) return;
  }
  throw Error{NPU_ERROR_INVALID_ARGUMENT, std::to_string(bytes) + " bytes at HBM address " +
                                              std::to_string(address) + " do not lie within one allocation"};
}

uint64_t Memory::available() const {
  std::lock_guard lock(mutex_);
  uint64_t free = 0;
  for (const auto& block : free_) free += block.second;
  return free;
}

uint64_t Memory::largest_free() const {
  uint64_t largest = 0;
  for (const auto& block : free_) largest = std::max(largest, block.second);
  return largest;
}

}  // namespace opennpu
