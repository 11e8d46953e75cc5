// What happened on some cores during some time of a launch, for the profiler.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "report.h"

namespace opennpu::timing {

class Recorder {
 public:
  // Which cores (by number, any that do not exist are ignored), which time, and how many slices at most.
  struct Scope {
    std::vector<unsigned> cores;
    int64_t begin, end;
    size_t most;
  };

  // One instruction on one unit; it has completed at `done`.
  struct Slice {
    int64_t core, queue, shadow, instruction, location, start, end, done;
  };

  // The second slice waited for a flag that was set after the first; indices into the slices.
  struct Arrow {
    int64_t from, to;
  };

  // What all cores did up to a barrier, or to the end.
  struct Stretch {
    int64_t location, begin, end;
  };

  using Id = int64_t;  // of a slice
  static constexpr Id kNone = -1;

  explicit Recorder(Scope scope) : scope_(std::move(scope)) {}

  void slice(const Slice& slice) {
    const bool wanted =
        std::find(scope_.cores.begin(), scope_.cores.end(), slice.core) != scope_.cores.end() &&
        slice.start < scope_.end && slice.end >= scope_.begin;
    Lane& lane = this->lane(slice.core, slice.queue);
    if (wanted && slices_.size() == scope_.most) truncated_ = true;
    if (wanted && !truncated_) {
      lane.last = static_cast<Id>(slices_.size());
      for (const Id from : lane.waited) arrows_.push_back({from, lane.last});
      slices_.push_back(slice);
    } else {
      lane.last = kNone;
    }
    lane.waited.clear();
  }

  // The last slice of a queue.
  Id last(int64_t core, int64_t queue) { return lane(core, queue).last; }

  // The next slice of the queue has waited for what came after the slice `from`.
  void waited(int64_t core, int64_t queue, Id from) {
    if (from != kNone) lane(core, queue).waited.push_back(from);
  }

  void stretch(const Stretch& stretch) { stretches_.push_back(stretch); }

  bool truncated() const { return truncated_; }
  const std::vector<Slice>& slices() const { return slices_; }
  const std::vector<Arrow>& arrows() const { return arrows_; }
  const std::vector<Stretch>& stretches() const { return stretches_; }

 private:
  struct Lane {
    Id last = kNone;
    std::vector<Id> waited;
  };

  Lane& lane(int64_t core, int64_t queue) {
    const auto index = static_cast<size_t>(core) * kQueues + static_cast<size_t>(queue);
    if (index >= lanes_.size()) lanes_.resize(index + 1);
    return lanes_[index];
  }

  const Scope scope_;
  bool truncated_ = false;
  std::vector<Slice> slices_;
  std::vector<Arrow> arrows_;
  std::vector<Stretch> stretches_;
  std::vector<Lane> lanes_;
};

}  // namespace opennpu::timing
