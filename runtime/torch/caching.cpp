#include "caching.h"

#include <c10/core/AllocatorConfig.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "streams.h"

namespace opennpu::torch_device {

namespace {

using c10::CachingAllocator::format_size;
using c10::CachingAllocator::kMinBlockSize;
using c10::CachingAllocator::kMinLargeAlloc;
using c10::CachingAllocator::kRoundLarge;
using c10::CachingAllocator::kSmallBuffer;
using c10::CachingAllocator::kSmallSize;
using c10::CachingAllocator::StatArray;
using c10::CachingAllocator::StatType;

constexpr size_t kLargeBuffer = 20 << 20;       // segment of blocks from kSmallSize to kMinLargeAlloc
constexpr size_t kMostBytes = size_t{1} << 46;  // more than any chip has: no rounding below overflows

constexpr size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

size_t segment_size(size_t block) {
  if (block <= kSmallSize) return kSmallBuffer;
  return block < kMinLargeAlloc ? kLargeBuffer : round_up(block, kRoundLarge);
}

template <typename Change>
void change(StatArray& stat, bool small, Change change) {
  change(stat[static_cast<size_t>(StatType::AGGREGATE)]);
  change(stat[static_cast<size_t>(small ? StatType::SMALL_POOL : StatType::LARGE_POOL)]);
}

void increase(StatArray& stat, const Block& block, size_t amount) {
  change(stat, block.small, [&](auto& s) { s.increase(amount); });
}

void decrease(StatArray& stat, const Block& block, size_t amount) {
  change(stat, block.small, [&](auto& s) { s.decrease(amount); });
}

template <typename Stats, typename Change>
void for_each(Stats& stats, Change change) {
  for (StatArray* array :
       {&stats.allocation, &stats.segment, &stats.active, &stats.inactive_split, &stats.allocated_bytes,
        &stats.reserved_bytes, &stats.active_bytes, &stats.inactive_split_bytes, &stats.requested_bytes}) {
    for (auto& stat : *array) change(stat);
  }
}

}  // namespace

Block* CachedMemory::allocate(size_t bytes, c10::StreamId stream) {
  const Chip& open = chip(index_);
  std::lock_guard lock(mutex_);
  if (bytes > kMostBytes) out_of_memory(bytes);
  const size_t size = round_up(bytes, std::max<size_t>(kMinBlockSize, open.desc.align_bytes));
  const bool small = size <= kSmallSize;
  finish_events();
  Block* block = find(size, small, stream);
  if (block == nullptr) block = new_segment(segment_size(size), small, stream);
  if (block == nullptr) {
    ++stats_.num_alloc_retries;
    free_segments();
    block = new_segment(segment_size(size), small, stream);
  }
  if (block == nullptr) block = new_segment(size, small, stream);
  if (block == nullptr) out_of_memory(bytes);
  split(block, size);
  block->requested = bytes;
  increase(stats_.allocation, *block, 1);
  increase(stats_.allocated_bytes, *block, block->size);
  increase(stats_.requested_bytes, *block, bytes);
  increase(stats_.active, *block, 1);
  increase(stats_.active_bytes, *block, block->size);
  return block;
}

void CachedMemory::free(Block* block) noexcept {
  std::lock_guard lock(mutex_);
  decrease(stats_.allocation, *block, 1);
  decrease(stats_.allocated_bytes, *block, block->size);
  decrease(stats_.requested_bytes, *block, block->requested);
  for (const c10::Stream user : std::exchange(block->other_users, {})) {
    add_event(chip(user.device_index()), native_stream(user), [&](Event&& event) {
      events_.emplace_back(std::move(event), block);
      ++block->pending_events;
    });
  }
  if (block->pending_events == 0) give_back(block);
}

void CachedMemory::record(Block* block, c10::Stream stream) {
  std::lock_guard lock(mutex_);
  if (stream.id() == block->stream && stream.device_index() == index_) return;
  auto& users = block->other_users;
  if (std::find(users.begin(), users.end(), stream) == users.end()) users.push_back(stream);
}

void CachedMemory::release_free_segments() {
  std::lock_guard lock(mutex_);
  free_segments();
}

// ---- blocks

// The smallest free block of the stream that is large enough, taken out of its pool.
Block* CachedMemory::find(size_t size, bool small, c10::StreamId stream) {
  Block key{.owner = this, .stream = stream, .small = small, .address = 0, .size = size};
  const auto found = pool(small).lower_bound(&key);
  if (found == pool(small).end() || (*found)->stream != stream) return nullptr;
  Block* block = *found;
  take(block);
  return block;
}

// A block that is a whole segment, or null when the chip or the limit has no room for it.
Block* CachedMemory::new_segment(size_t size, bool small, c10::StreamId stream) {
  const Chip& open = chip(index_);
  if (reserved() + size > limit_) return nullptr;
  npu_address address;
  const npu_status status = open.driver->memory_alloc(open.device, size, &address);
  if (status == NPU_ERROR_OUT_OF_MEMORY) return nullptr;
  check(status);
  auto* block = new Block{.owner = this, .stream = stream, .small = small, .address = address, .size = size};
  segments_.insert(block);
  ++stats_.num_device_alloc;
  increase(stats_.segment, *block, 1);
  increase(stats_.reserved_bytes, *block, size);
  return block;
}

// Cuts a block that is in no pool to `size`, unless too little would be left over; the rest becomes free.
void CachedMemory::split(Block* block, size_t size) {
  const size_t left = block->size - size;
  if (block->small ? left < kMinBlockSize : left <= kSmallSize) return;
  auto* rest = new Block(*block);
  rest->address += size;
  rest->size = left;
  rest->previous = block;
  if (rest->next != nullptr) rest->next->previous = rest;
  block->next = rest;
  block->size = size;
  pool(rest->small).insert(rest);
  increase(stats_.inactive_split, *rest, 1);
  increase(stats_.inactive_split_bytes, *rest, rest->size);
}

void CachedMemory::take(Block* block) {
  pool(block->small).erase(block);
  if (!block->is_part()) return;
  decrease(stats_.inactive_split, *block, 1);
  decrease(stats_.inactive_split_bytes, *block, block->size);
}

// Puts a block into its pool, together with its free neighbours.
void CachedMemory::give_back(Block* block) {
  decrease(stats_.active, *block, 1);
  decrease(stats_.active_bytes, *block, block->size);
  block = merged(block, block->previous);
  block = merged(block, block->next);
  pool(block->small).insert(block);
  if (!block->is_part()) return;
  increase(stats_.inactive_split, *block, 1);
  increase(stats_.inactive_split_bytes, *block, block->size);
}

// The block with its neighbour's memory, when that is free.
Block* CachedMemory::merged(Block* block, Block* neighbour) {
  if (neighbour == nullptr || !pool(block->small).contains(neighbour)) return block;
  take(neighbour);
  Block* first = neighbour == block->previous ? neighbour : block;
  Block* second = first->next;
  first->size += second->size;
  first->next = second->next;
  if (first->next != nullptr) first->next->previous = first;
  delete second;
  return first;
}

// Frees the blocks that no other stream uses any more. What has happened is dropped behind the loop, which
// an event that cannot be asked ends.
void CachedMemory::finish_events() {
  for (auto& [event, block] : events_) {
    if (block == nullptr || !event.happened()) continue;
    if (--block->pending_events == 0) give_back(block);
    block = nullptr;
  }
  std::erase_if(events_, [](const auto& entry) { return entry.second == nullptr; });
}

void CachedMemory::free_segments() {
  if (!is_open(index_)) return;
  wait_for_streams(index_);
  finish_events();
  const Chip& open = chip(index_);
  for (Pool* pool : {&small_, &large_}) {
    std::erase_if(*pool, [&](Block* block) {
      if (block->is_part()) return false;
      check(open.driver->memory_free(open.device, block->address));
      ++stats_.num_device_free;
      decrease(stats_.segment, *block, 1);
      decrease(stats_.reserved_bytes, *block, block->size);
      segments_.erase(block);
      delete block;
      return true;
    });
  }
}

// ---- limit and statistics

void CachedMemory::limit(size_t bytes) {
  std::lock_guard lock(mutex_);
  limit_ = bytes;
}

size_t CachedMemory::reserved() const { return static_cast<size_t>(stats_.reserved_bytes[0].current); }

std::vector<SegmentInfo> CachedMemory::snapshot() {
  std::lock_guard lock(mutex_);
  std::vector<SegmentInfo> segments;
  for (Block* first : segments_) {
    SegmentInfo& segment = segments.emplace_back();
    segment.device = index_;
    segment.address = static_cast<size_t>(first->address);
    segment.is_large = !first->small;
    segment.stream = reinterpret_cast<void*>(first->stream);
    for (Block* block = first; block != nullptr; block = block->next) {
      c10::CachingDeviceAllocator::BlockInfo& info = segment.blocks.emplace_back();
      info.size = block->size;
      info.active = !pool(block->small).contains(block);
      info.allocated = info.active && block->pending_events == 0;
      info.requested_size = info.active ? block->requested : 0;
      segment.total_size += info.size;
      segment.requested_size += info.requested_size;
      if (info.active) segment.active_size += info.size;
      if (info.allocated) segment.allocated_size += info.size;
    }
  }
  return segments;
}

c10::CachingDeviceAllocator::DeviceStats CachedMemory::stats() {
  std::lock_guard lock(mutex_);
  return stats_;
}

void CachedMemory::reset_accumulated_stats() {
  std::lock_guard lock(mutex_);
  for_each(stats_, [](auto& stat) { stat.reset_accumulated(); });
  stats_.num_alloc_retries = stats_.num_ooms = stats_.num_device_alloc = stats_.num_device_free = 0;
}

void CachedMemory::reset_peak_stats() {
  std::lock_guard lock(mutex_);
  for_each(stats_, [](auto& stat) { stat.reset_peak(); });
}

void CachedMemory::out_of_memory(size_t bytes) {
  ++stats_.num_ooms;
  const Chip& open = chip(index_);
  uint64_t total = 0, free = 0;
  open.driver->memory_info(open.device, &total, &free);
  const auto current = [](const StatArray& stat) { return static_cast<uint64_t>(stat[0].current); };
  const uint64_t allocated = current(stats_.allocated_bytes);
  const std::string limit =
      limit_ == kNoLimit ? "" : " set_per_process_memory_fraction allows " + format_size(limit_) + ".";
  TORCH_CHECK_WITH(
      OutOfMemoryError, false, "opennpu out of memory. Tried to allocate ", format_size(bytes),
      ". Device opennpu:", static_cast<int>(index_), " has a total capacity of ", format_size(total),
      " of which ", format_size(free), " is free.", limit, " Of the used memory ", format_size(allocated),
      " is allocated by PyTorch, and ", format_size(reserved() - allocated),
      " is reserved by PyTorch but unallocated. Drop tensors that are no longer needed, use "
      "smaller batches or a shorter context; the memory that other owners hold (a pool of KV "
      "pages, say) can be made smaller; the virtual chip has room for this with OPENNPU_HBM_BYTES=",
      total + round_up(bytes, kMinBlockSize), " or more.");
}

}  // namespace opennpu::torch_device
