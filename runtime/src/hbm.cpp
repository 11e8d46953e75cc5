#include <algorithm>
#include <cstdio>

#include "engine.h"

namespace opennpu {

void Hbm::assign(std::span<const Range> ranges) {
  readable_.clear();
  writable_.clear();
  for (const Range& range : ranges) {
    const Span span{range.address, range.address + range.bytes};
    if (span.begin == span.end) continue;
    readable_.push_back(span);
    if (range.writable) writable_.push_back(span);
  }
  merge(readable_);
  merge(writable_);
}

// Overlapping ranges become one. Neighbours do not: an access must not run on from one buffer into the next.
void Hbm::merge(std::vector<Span>& spans) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  size_t merged = 0;
  for (const Span& span : spans) {
    if (merged != 0 && span.begin < spans[merged - 1].end) {
      spans[merged - 1].end = std::max(spans[merged - 1].end, span.end);
    } else {
      spans[merged++] = span;
    }
  }
  spans.resize(merged);
}

std::byte* Hbm::find(uint64_t address, uint64_t bytes, bool write) const {
  const std::vector<Span>& spans = write ? writable_ : readable_;
  auto after = std::upper_bound(spans.begin(), spans.end(), address,
                                [](uint64_t value, const Span& span) { return value < span.begin; });
  if (after == spans.begin()) return nullptr;
  const Span& span = *std::prev(after);
  if (address > span.end || bytes > span.end - address) return nullptr;
  return base_ + address;
}

const std::byte* Hbm::find_constant(uint64_t address, uint64_t bytes) const {
  const std::byte* host = find(address, bytes, false);
  const auto written = [&](const Span& span) { return span.begin < address + bytes && address < span.end; };
  return host && std::none_of(writable_.begin(), writable_.end(), written) ? host : nullptr;
}

std::byte* Hbm::translate(uint64_t address, uint64_t bytes, bool write) const {
  if (std::byte* host = find(address, bytes, write)) return host;
  char message[160];
  const bool readable = write && find(address, bytes, false) != nullptr;
  snprintf(message, sizeof message, "%s of %llu bytes at HBM address 0x%llx: %s", write ? "write" : "read",
           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(address),
           readable ? "the buffer is an argument that the program only reads"
                    : "not within one argument buffer of this launch");
  throw Trap{message};
}

}  // namespace opennpu
