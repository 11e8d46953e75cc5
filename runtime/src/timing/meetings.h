// The shared loads of a stretch between two barriers: a core's n-th load with the same cores is the n-th of
// each of them. The sequencers have checked that they all meet (shared_loads.h).
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include "../shared_loads.h"

namespace opennpu::timing {

class Meetings {
 public:
  using Id = uint32_t;
  static constexpr Id kNone = std::numeric_limits<Id>::max();

  // The next load that `core` shares with `cores`.
  Id next(uint32_t core, const CoreGroup& cores) {
    Group& group = groups_[cores];
    group.issued.resize(cores.count);
    size_t& number = group.issued[(core - cores.first) / cores.stride];
    if (number == group.meetings.size()) {
      group.meetings.push_back(static_cast<Id>(meetings_.size()));
      meetings_.push_back({cores, cores.count});
    }
    return group.meetings[number++];
  }

  // One core more has come to it; whether it was the last.
  bool arrive(Id id) { return --meetings_[id].absent == 0; }

  const CoreGroup& cores(Id id) const { return meetings_[id].cores; }

  void clear() {
    groups_.clear();
    meetings_.clear();
  }

 private:
  struct Meeting {
    CoreGroup cores;
    uint32_t absent;
  };
  struct Group {
    std::vector<Id> meetings;    // in the order of the programs
    std::vector<size_t> issued;  // by core of the group: how many
  };

  std::map<CoreGroup, Group> groups_;
  std::vector<Meeting> meetings_;
};

}  // namespace opennpu::timing
