// The paged KV memory of one model: the pages, who uses them, and where they lie.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "handles.h"

namespace opennpu {

// What is kept for a token. A row is one head's K or V of one token.
struct KvGeometry {
  uint64_t layers, kv_heads, head_dim, v_head_dim, element_bytes;
  uint64_t page_size;  // tokens a page
  uint64_t pages;
};

// Bytes. Slot s of layer l, head h lies at l·layer + (s div page_size)·page + (s mod page_size)·token +
// h·head, V the same plus v_offset; docs/architecture.md says how launches are told.
struct KvStrides {
  uint64_t layer, v_offset, page, token, head;
};

enum class KvLayout {
  Paged,  // layer, page: K then V, each [head][token][dim]
  Slots,  // layer: K then V, each [slot][head][dim]
};

KvStrides kv_strides(const KvGeometry& geometry, KvLayout layout);

class PagePool {
 public:
  // Allocates the memory. Throws Error.
  PagePool(DevicePtr device, const KvGeometry& geometry, KvLayout layout);

  // Takes pages, each with one reference. Throws Error (OUT_OF_MEMORY) and takes none when there
  // are not enough.
  std::vector<int64_t> alloc(uint64_t count);

  // Adds or drops a reference of each page; a page without references is free again. Throws Error
  // and changes nothing when a page is not in use or not of this pool.
  void retain(std::span<const int64_t> pages);
  void release(std::span<const int64_t> pages);

  uint64_t free_pages() const;
  uint32_t references(int64_t page) const;  // throws Error when the page is not of this pool

  // Copies pages out of or into the pool, as [page][layer][K, V][head][token][row] whatever the
  // layout. `data` has bytes_of(pages.size()). The caller orders this with the streams.
  void export_pages(std::span<const int64_t> pages, std::byte* data) const;
  void import_pages(std::span<const int64_t> pages, const std::byte* data);
  uint64_t page_bytes() const;

  const BufferHandle& memory() const { return memory_; }
  const KvGeometry& geometry() const { return geometry_; }
  const KvStrides& strides() const { return strides_; }

 private:
  void check_in_use(int64_t page, const char* verb) const;
  uint32_t& count(int64_t page) { return references_[static_cast<size_t>(page)]; }
  uint64_t half_bytes() const;
  template <typename Copy>
  void for_each_half(std::span<const int64_t> pages, Copy copy) const;
  template <typename Copy>
  void for_each_row(uint64_t halves, Copy copy) const;

  KvGeometry geometry_;
  KvStrides strides_;
  BufferHandle memory_;
  mutable std::mutex mutex_;
  std::vector<uint32_t> references_;
  std::vector<int64_t> free_;  // taken from the back, lowest page first
};

}  // namespace opennpu
