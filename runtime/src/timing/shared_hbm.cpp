#include "shared_hbm.h"

#include <algorithm>

namespace opennpu::timing {

void SharedHbm::post(int64_t start, int64_t work, uint32_t id) {
  const double time = std::max(now_, static_cast<double>(start));  // an end was rounded down to whole cycles
  served_ = active_.empty() ? 0 : served_ + rate(active_.size()) * (time - now_);
  now_ = time;
  active_.push({served_ + static_cast<double>(work), id});
  predict();
}

uint32_t SharedHbm::end_next() {
  const Entry entry = active_.top();
  active_.pop();
  now_ = next_end_;
  served_ = entry.end;
  predict();
  return entry.id;
}

void SharedHbm::predict() {
  next_end_ = active_.empty() ? kNever : now_ + (active_.top().end - served_) / rate(active_.size());
}

double SharedHbm::rate(size_t transfers) const {
  return std::min(transfer_rate_, bandwidth_ / static_cast<double>(std::max<size_t>(transfers, 1)));
}

}  // namespace opennpu::timing
