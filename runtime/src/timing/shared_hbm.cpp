#include "shared_hbm.h"

#include <algorithm>

namespace opennpu::timing {

void SharedHbm::post(int64_t start, int64_t work, uint32_t id) {
  waiting_.push({static_cast<double>(start), id, static_cast<double>(work)});
}

SharedHbm::End SharedHbm::next() {
  for (;;) {
    if (active_.empty()) {
      now_ = std::max(now_, waiting_.top().key);
      served_ = 0;
    }
    const double speed = rate(active_.size());
    const double end = active_.empty() ? now_ : now_ + (active_.top().key - served_) / speed;
    if (!waiting_.empty() && (active_.empty() || waiting_.top().key <= end)) {
      const Entry entry = waiting_.top();
      waiting_.pop();
      const double start = std::max(now_, entry.key);
      if (!active_.empty()) served_ += speed * (start - now_);
      now_ = start;
      active_.push({served_ + entry.work, entry.id, entry.work});
      continue;
    }
    now_ = end;
    served_ = active_.top().key;
    const uint32_t id = active_.top().id;
    active_.pop();
    return {now_, id};
  }
}

double SharedHbm::rate(size_t transfers) const {
  return std::min(transfer_rate_, bandwidth_ / static_cast<double>(std::max<size_t>(transfers, 1)));
}

}  // namespace opennpu::timing
