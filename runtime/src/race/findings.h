// What the race checker found, and its words for the user.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "../engine.h"
#include "../reference/footprint.h"
#include "shadow.h"

namespace opennpu::race {

// Two accesses that nothing orders. On one core `first` stands earlier in program order.
struct Race {
  Actor first, second;
  unsigned first_core, second_core;
  Memory memory;
  int64_t begin, end;  // bytes
};

// Between two barriers, a flag that two queues set, or two queues wait for.
struct SharedFlag {
  Actor first, second;
  unsigned core;
  int64_t flag;
  bool set;
};

// Keeps one finding for each pair of instructions: the first, its byte range grown to all that this pair of
// executions shares.
class Findings {
 public:
  void add(const Race& race);
  void add(const SharedFlag& shared);
  void merge(const Findings& other);  // what `this` already has, stays

  // One finding a line, in order of the instructions.
  std::string text(const DescribeSite& describe) const;

 private:
  using Pair = std::tuple<uint32_t, uint32_t, bool>;  // text indices; whether the cores differ
  using FlagKey = std::tuple<uint32_t, uint32_t, int64_t>;

  std::map<Pair, Race> races_;
  std::map<FlagKey, SharedFlag> flags_;
};

}  // namespace opennpu::race
