#include "pinned.h"

#include <ATen/core/CachingHostAllocator.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "events.h"
#include "streams.h"

namespace opennpu::torch_device {

namespace {

// The host memory that has been taken from the system, used or cached: first address → bytes.
class Ranges {
 public:
  void add(const void* begin, size_t bytes) {
    std::unique_lock lock(mutex_);
    ranges_[static_cast<const char*>(begin)] = bytes;
  }
  void remove(const void* begin) {
    std::unique_lock lock(mutex_);
    ranges_.erase(static_cast<const char*>(begin));
  }
  // The first address of the block around `data`, or null.
  const void* find(const void* data) const {
    const auto* byte = static_cast<const char*>(data);
    std::shared_lock lock(mutex_);
    auto block = ranges_.upper_bound(byte);
    if (block == ranges_.begin()) return nullptr;
    --block;
    return byte < block->first + block->second ? block->first : nullptr;
  }

 private:
  mutable std::shared_mutex mutex_;
  std::map<const char*, size_t> ranges_;
};

Ranges& ranges() {
  static auto* ranges = new Ranges;
  return *ranges;
}

// PyTorch's caching host allocator over the C library's memory and the driver's events.
struct PinnedMemory final : at::CachingHostAllocatorImpl<c10::Stream, Event> {
 private:
  static constexpr size_t kPage = 4096;

  void allocate_host_memory(size_t bytes, void** pointer) override {
    *pointer = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
    TORCH_CHECK_WITH(OutOfMemoryError, *pointer != nullptr, "opennpu: the host has no ", bytes,
                     " bytes left for pinned memory");
    ranges().add(*pointer, bytes);
  }
  void free_block(at::HostBlock<c10::Stream>* block) override {
    ranges().remove(block->ptr_);
    std::free(block->ptr_);
  }
  void record_stream(std::optional<std::vector<Event>>& events, c10::Stream stream) override {
    add_event(chip(stream.device_index()), native_stream(stream),
              [&](Event&& event) { events->push_back(std::move(event)); });
  }
  bool query_event(Event& event) override { return event.happened(); }
  c10::Stream get_current_stream() const override { return current_stream_of(current_device()); }
  bool stream_is_capturing(c10::Stream) const override { return false; }
};

void release(void* block);

using PinnedAllocator = at::CachingHostAllocatorInterface<PinnedMemory, &release>;

PinnedAllocator& instance() {
  static auto* allocator = new PinnedAllocator;  // tensors may outlive static objects
  return *allocator;
}

void release(void* block) {
  if (!in_bad_fork()) instance().free(block);
}

const at::HostAllocatorRegistry<c10::DeviceType::PrivateUse1> registered(&instance());

}  // namespace

c10::Allocator* pinned_allocator() { return &instance(); }

bool is_pinned(const void* data) { return ranges().find(data) != nullptr; }

void empty_pinned_cache() { instance().empty_cache(); }

void record_pinned(const void* data, c10::Stream stream) {
  auto* block = const_cast<void*>(ranges().find(data));
  instance().record_event(block, nullptr, stream);
}

}  // namespace opennpu::torch_device
