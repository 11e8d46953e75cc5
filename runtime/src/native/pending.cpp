#include "pending.h"

#include <algorithm>
#include <cstring>

namespace opennpu::native {
namespace {

bool overlap(const Extent& a, const Extent& b) { return a.begin < b.end && b.begin < a.end; }
bool within(const Extent& a, const Extent& b) { return b.begin <= a.begin && a.end <= b.end; }

}  // namespace

void Pending::add(const Extent& to, const std::byte* from, std::byte* spm) {
  append(to, true, to.end - to.begin, spm).rows.assign(1, from);
}

std::vector<const std::byte*>& Pending::add_rows(const Extent& to, int64_t row_bytes, std::byte* spm) {
  Load& load = append(to, false, row_bytes, spm);
  load.rows.resize((to.end - to.begin) / row_bytes);
  return load.rows;
}

Pending::Load& Pending::append(const Extent& to, bool constant, int64_t row_bytes, std::byte* spm) {
  if (count_ == loads_.size()) copy(0, spm);  // the oldest: most likely nobody looks at it any more
  Load& load = loads_[count_++];
  load.to = to;
  load.constant = constant;
  load.row_bytes = row_bytes;
  return load;
}

const std::byte* Pending::find(const Extent& extent) const {
  for (size_t i = 0; i < count_; ++i)
    if (loads_[i].constant && within(extent, loads_[i].to))
      return loads_[i].rows[0] + (extent.begin - loads_[i].to.begin);
  return nullptr;
}

bool Pending::find_rows(const Extent& extent, int64_t first, int64_t stride, int64_t bytes, int64_t count,
                        const std::byte** rows) const {
  for (size_t i = 0; i < count_; ++i) {
    const Load& load = loads_[i];
    if (!within(extent, load.to)) continue;
    const int64_t at = first - load.to.begin, column = at % load.row_bytes;
    if (load.rows.size() == 1) {
      for (int64_t r = 0; r < count; ++r) rows[r] = load.rows[0] + at + r * stride;
      return true;
    }
    if (stride != load.row_bytes || column + bytes > load.row_bytes) return false;
    const auto* from = load.rows.data() + at / load.row_bytes;
    for (int64_t r = 0; r < count; ++r) rows[r] = from[r] + column;
    return true;
  }
  return false;
}

void Pending::before_read(const Extent& extent, std::byte* spm) {
  for (size_t i = count_; i-- > 0;)
    if (overlap(extent, loads_[i].to)) copy(i, spm);
}

void Pending::before_write(const Extent& extent, bool whole, std::byte* spm) {
  for (size_t i = count_; i-- > 0;) {
    Load& load = loads_[i];
    if (!overlap(extent, load.to)) continue;
    if (whole && within(load.to, extent))
      remove(i);
    else if (!whole || extent.begin > load.to.begin || !drop_front(load, extent.end - load.to.begin))
      copy(i, spm);
  }
}

// What is left of a long tile when a short one takes its place; false where that is no number of whole rows.
bool Pending::drop_front(Load& load, int64_t bytes) {
  if (load.rows.size() == 1) {
    load.rows[0] += bytes;
    load.row_bytes -= bytes;
  } else if (bytes % load.row_bytes == 0) {
    load.rows.erase(load.rows.begin(), load.rows.begin() + bytes / load.row_bytes);
  } else {
    return false;
  }
  load.to.begin += bytes;
  return true;
}

void Pending::before_store(const std::byte* begin, const std::byte* end, std::byte* spm) {
  for (size_t i = count_; i-- > 0;) {
    const Load& load = loads_[i];
    const auto meets = [&](const std::byte* row) { return begin < row + load.row_bytes && row < end; };
    if (!load.constant && std::any_of(load.rows.begin(), load.rows.end(), meets)) copy(i, spm);
  }
}

void Pending::before_barrier(std::byte* spm) {
  for (size_t i = count_; i-- > 0;)
    if (!loads_[i].constant) copy(i, spm);
}

void Pending::copy(size_t i, std::byte* spm) {
  const Load& load = loads_[i];
  std::byte* to = spm + load.to.begin;
  for (const std::byte* row : load.rows) {
    std::memcpy(to, row, load.row_bytes);
    to += load.row_bytes;
  }
  remove(i);
}

// The lists of rows keep their memory.
void Pending::remove(size_t i) {
  std::rotate(loads_.begin() + i, loads_.begin() + i + 1, loads_.begin() + count_--);
}

}  // namespace opennpu::native
