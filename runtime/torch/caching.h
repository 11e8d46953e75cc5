// One chip's memory, kept for reuse: the design of PyTorch's CUDACachingAllocator (c10/cuda), smaller.
//
// Memory is taken from the driver in segments, which are split into blocks. A block belongs to the stream
// that it was allocated for: given back, it is free for that stream's later work at once, as that runs
// behind the work that still uses the block. Work on other streams delays the reuse by events.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <deque>
#include <limits>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "events.h"

namespace opennpu::torch_device {

using c10::CachingDeviceAllocator::SegmentInfo;

class CachedMemory;

struct Block {
  CachedMemory* owner;
  c10::StreamId stream;
  bool small;  // which pool
  npu_address address;
  size_t size;
  size_t requested = 0;
  Block* previous = nullptr;  // neighbours within the segment
  Block* next = nullptr;
  std::vector<c10::Stream> other_users{};
  size_t pending_events = 0;

  bool is_part() const { return previous != nullptr || next != nullptr; }
};

// Thread-safe.
class CachedMemory {
 public:
  explicit CachedMemory(DeviceIndex index) : index_(index) {}

  DeviceIndex index() const { return index_; }

  // For work on `stream`, contents undefined; `bytes` > 0. Throws c10::OutOfMemoryError.
  Block* allocate(size_t bytes, c10::StreamId stream);
  void free(Block* block) noexcept;

  // The block is used by what is queued on `stream`, until it is freed.
  void record(Block* block, c10::Stream stream);

  // Gives all free segments back to the driver, once the chip has finished with them.
  void release_free_segments();

  // The most bytes to take from the chip from now on.
  void limit(size_t bytes);

  c10::CachingDeviceAllocator::DeviceStats stats();
  std::vector<SegmentInfo> snapshot();  // `stream` is the stream's id
  void reset_accumulated_stats();
  void reset_peak_stats();

 private:
  struct Order {
    bool operator()(const Block* a, const Block* b) const {
      return std::tie(a->stream, a->size, a->address) < std::tie(b->stream, b->size, b->address);
    }
  };
  using Pool = std::set<Block*, Order>;
  static constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();
  using Stats = c10::CachingDeviceAllocator::DeviceStats;

  Pool& pool(bool small) { return small ? small_ : large_; }
  Block* find(size_t size, bool small, c10::StreamId stream);
  Block* new_segment(size_t size, bool small, c10::StreamId stream);
  void split(Block* block, size_t size);
  void take(Block* block);
  void give_back(Block* block);
  Block* merged(Block* block, Block* neighbour);
  void finish_events();
  void free_segments();
  size_t reserved() const;
  [[noreturn]] void out_of_memory(size_t bytes);

  const DeviceIndex index_;
  std::mutex mutex_;           // of all that follows
  Pool small_, large_;         // the free blocks
  std::set<Block*> segments_;  // the first block of each
  size_t limit_ = kNoLimit;
  std::deque<std::pair<Event, Block*>> events_;  // freed blocks that other streams may still use
  Stats stats_;
};

}  // namespace opennpu::torch_device
