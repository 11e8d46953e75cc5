#include "pending.h"

#include <cstring>

namespace opennpu::native {
namespace {

bool overlap(const Extent& a, const Extent& b) { return a.begin < b.end && b.begin < a.end; }
bool within(const Extent& a, const Extent& b) { return b.begin <= a.begin && a.end <= b.end; }

}  // namespace

void Pending::add(const Extent& to, const std::byte* from, std::byte* spm) {
  if (count_ == loads_.size()) copy(0, spm);  // the oldest: most likely nobody looks at it any more
  loads_[count_++] = {to, from};
}

const std::byte* Pending::find(const Extent& extent) const {
  for (size_t i = 0; i < count_; ++i)
    if (within(extent, loads_[i].to)) return loads_[i].from + (extent.begin - loads_[i].to.begin);
  return nullptr;
}

void Pending::before_read(const Extent& extent, std::byte* spm) {
  for (size_t i = count_; i-- > 0;)
    if (overlap(extent, loads_[i].to)) copy(i, spm);
}

void Pending::before_write(const Extent& extent, bool whole, std::byte* spm) {
  for (size_t i = count_; i-- > 0;) {
    Load& load = loads_[i];
    if (!overlap(extent, load.to)) continue;
    if (whole && within(load.to, extent)) {
      remove(i);
    } else if (whole && extent.begin <= load.to.begin) {  // a short tile in a buffer of long ones
      load.from += extent.end - load.to.begin;
      load.to.begin = extent.end;
    } else {
      copy(i, spm);
    }
  }
}

void Pending::copy(size_t i, std::byte* spm) {
  const Load load = loads_[i];
  std::memcpy(spm + load.to.begin, load.from, load.to.end - load.to.begin);
  remove(i);
}

}  // namespace opennpu::native
