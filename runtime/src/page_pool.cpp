#include "page_pool.h"

#include <algorithm>
#include <cstring>

namespace opennpu {

namespace {

uint64_t row_bytes(const KvGeometry& g) { return std::max(g.head_dim, g.v_head_dim) * g.element_bytes; }

const KvGeometry& checked(const KvGeometry& g) {
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw Error{NPU_ERROR_INVALID_ARGUMENT, std::string("KV pool: ") + what};
  };
  constexpr uint64_t kMost = 1 << 20;
  for (const uint64_t value : {g.layers, g.kv_heads, g.head_dim, g.v_head_dim, g.element_bytes}) {
    require(value >= 1 && value <= kMost, "layers, heads and dimensions must be from 1 to 2^20");
  }
  require(g.page_size >= 1 && g.page_size <= 128 && 128 % g.page_size == 0, "the page size must divide 128");
  require(g.pages >= 1 && g.pages <= uint64_t{1} << 31, "it must have from 1 to 2^31 pages");
  unsigned __int128 bytes = row_bytes(g);
  for (const uint64_t factor : {uint64_t{2}, g.layers, g.kv_heads, g.page_size, g.pages}) bytes *= factor;
  require(bytes <= uint64_t{1} << 46, "it is larger than any memory");
  return g;
}

}  // namespace

KvStrides kv_strides(const KvGeometry& g, KvLayout layout) {
  const uint64_t row = row_bytes(g), token = row * g.kv_heads, half_page = token * g.page_size;
  const uint64_t layer = 2 * half_page * g.pages;
  if (layout == KvLayout::Slots) {
    return {.layer = layer, .v_offset = layer / 2, .page = half_page, .token = token, .head = row};
  }
  return {
      .layer = layer, .v_offset = half_page, .page = 2 * half_page, .token = row, .head = row * g.page_size};
}

PagePool::PagePool(DevicePtr device, const KvGeometry& geometry, KvLayout layout)
    : geometry_(checked(geometry)),
      strides_(kv_strides(geometry, layout)),
      memory_(std::move(device), strides_.layer * geometry.layers),
      references_(geometry.pages, 0) {
  for (uint64_t page = geometry.pages; page-- > 0;) free_.push_back(static_cast<int64_t>(page));
}

std::vector<int64_t> PagePool::alloc(uint64_t wanted) {
  std::lock_guard lock(mutex_);
  if (wanted > free_.size()) {
    throw Error{NPU_ERROR_OUT_OF_MEMORY,
                "the KV pool is too small: " + std::to_string(wanted) + " pages asked for, " +
                    std::to_string(free_.size()) + " of " + std::to_string(geometry_.pages) + " are free (" +
                    std::to_string(geometry_.page_size) +
                    " tokens a page): give it more pages, or run fewer or shorter sequences"};
  }
  std::vector<int64_t> pages(free_.rbegin(), free_.rbegin() + static_cast<std::ptrdiff_t>(wanted));
  free_.resize(free_.size() - wanted);
  for (const int64_t page : pages) count(page) = 1;
  return pages;
}

void PagePool::retain(std::span<const int64_t> pages) {
  std::lock_guard lock(mutex_);
  for (const int64_t page : pages) check_in_use(page, "retain");
  for (const int64_t page : pages) ++count(page);
}

void PagePool::release(std::span<const int64_t> pages) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < pages.size(); ++i) {
    try {
      check_in_use(pages[i], "release");
    } catch (...) {
      for (size_t j = 0; j < i; ++j) ++count(pages[j]);
      throw;
    }
    --count(pages[i]);
  }
  std::vector<int64_t> freed(pages.begin(), pages.end());
  std::sort(freed.begin(), freed.end(), std::greater<>());
  freed.erase(std::unique(freed.begin(), freed.end()), freed.end());
  for (const int64_t page : freed) {
    if (count(page) == 0) free_.push_back(page);
  }
}

void PagePool::check_in_use(int64_t page, const char* verb) const {
  if (page < 0 || static_cast<uint64_t>(page) >= geometry_.pages) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, std::string(verb) + " of page " + std::to_string(page) +
                                                ": the KV pool has " + std::to_string(geometry_.pages) +
                                                " pages"};
  }
  if (references_[static_cast<size_t>(page)] == 0) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT,
                std::string(verb) + " of page " + std::to_string(page) + ", which is free already"};
  }
}

uint64_t PagePool::free_pages() const {
  std::lock_guard lock(mutex_);
  return free_.size();
}

uint32_t PagePool::references(int64_t page) const {
  std::lock_guard lock(mutex_);
  if (page < 0 || static_cast<uint64_t>(page) >= geometry_.pages) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, "the KV pool has no page " + std::to_string(page)};
  }
  return references_[static_cast<size_t>(page)];
}

uint64_t PagePool::page_bytes() const { return 2 * geometry_.layers * half_bytes(); }

uint64_t PagePool::half_bytes() const {
  return geometry_.kv_heads * geometry_.page_size * row_bytes(geometry_);
}

// In both layouts K and V of a page in a layer lie in one piece each. Calls `copy` with the address of each
// half and its number, in the order of the exported data.
template <typename Copy>
void PagePool::for_each_half(std::span<const int64_t> pages, Copy copy) const {
  {
    std::lock_guard lock(mutex_);
    for (const int64_t page : pages) check_in_use(page, "copy");
  }
  const StreamHandle stream(memory_.device);
  uint64_t number = 0;
  for (const int64_t page : pages) {
    for (uint64_t layer = 0; layer < geometry_.layers; ++layer) {
      for (uint64_t part = 0; part < 2; ++part) {
        copy(stream.stream,
             memory_.address + layer * strides_.layer + static_cast<uint64_t>(page) * strides_.page +
                 part * strides_.v_offset,
             number++);
      }
    }
  }
  memory_.device->driver.check(memory_.device->driver->stream_synchronize(stream.stream));
}

// Calls `copy` with the place of each row in a half as it lies in the pool, rows in the order of the
// exported data.
template <typename Copy>
void PagePool::for_each_row(uint64_t halves, Copy copy) const {
  for (uint64_t half = 0; half < halves; ++half) {
    for (uint64_t head = 0; head < geometry_.kv_heads; ++head) {
      for (uint64_t token = 0; token < geometry_.page_size; ++token) {
        copy(half * half_bytes() + head * strides_.head + token * strides_.token);
      }
    }
  }
}

void PagePool::export_pages(std::span<const int64_t> pages, std::byte* data) const {
  const uint64_t bytes = row_bytes(geometry_);
  std::vector<std::byte> halves(pages.size() * page_bytes());
  const DriverLibrary& driver = memory_.device->driver;
  for_each_half(pages, [&](npu_stream stream, npu_address at, uint64_t number) {
    driver.check(driver->copy_to_host(stream, &halves[number * half_bytes()], at, half_bytes()));
  });
  for_each_row(halves.size() / half_bytes(), [&](uint64_t place) {
    std::memcpy(data, &halves[place], bytes);
    data += bytes;
  });
}

void PagePool::import_pages(std::span<const int64_t> pages, const std::byte* data) {
  const uint64_t bytes = row_bytes(geometry_);
  std::vector<std::byte> halves(pages.size() * page_bytes());
  for_each_row(halves.size() / half_bytes(), [&](uint64_t place) {
    std::memcpy(&halves[place], data, bytes);
    data += bytes;
  });
  const DriverLibrary& driver = memory_.device->driver;
  for_each_half(pages, [&](npu_stream stream, npu_address at, uint64_t number) {
    driver.check(driver->copy_to_device(stream, at, &halves[number * half_bytes()], half_bytes()));
  });
}

}  // namespace opennpu
