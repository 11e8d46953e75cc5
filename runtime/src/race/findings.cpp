#include "findings.h"

#include <algorithm>
#include <vector>

namespace opennpu::race {

namespace {

constexpr size_t kMostLines = 100;

std::string who(const DescribeSite& describe, const Actor& actor, unsigned core) {
  static constexpr const char* kQueues[] = {"load", "store", "matrix", "vector", "sequencer"};
  return describe(actor.site) + " [core " + std::to_string(core) + ", " +
         kQueues[static_cast<size_t>(actor.queue)] + "]";
}

std::string describe_race(const DescribeSite& describe, const Race& race) {
  const auto part = [&](const Actor& actor, unsigned core) {
    return who(describe, actor, core) + (actor.write ? " writes" : " reads");
  };
  static constexpr const char* kMemories[] = {"scratchpad", "accumulator", "HBM"};
  std::string text = "race: " + part(race.first, race.first_core) + " and " +
                     part(race.second, race.second_core) + " bytes " + std::to_string(race.begin) + " to " +
                     std::to_string(race.end) + " of " + kMemories[static_cast<size_t>(race.memory)];
  return text + (race.first_core == race.second_core ? "; no flag or barrier orders them"
                                                     : "; no barrier orders them");
}

std::string describe_flag(const DescribeSite& describe, const SharedFlag& shared) {
  return "flag " + std::to_string(shared.flag) + " is " + (shared.set ? "set" : "waited for") + " by " +
         who(describe, shared.first, shared.core) + " and by " + who(describe, shared.second, shared.core) +
         " between two barriers: which set meets which wait is not determined";
}

}  // namespace

void Findings::add(const Race& race) {
  const auto [low, high] = std::minmax(race.first.site.instruction, race.second.site.instruction);
  const auto [place, added] = races_.try_emplace({low, high, race.first_core != race.second_core}, race);
  Race& known = place->second;
  const bool same = known.first.time == race.first.time && known.second.time == race.second.time &&
                    known.first_core == race.first_core && known.second_core == race.second_core &&
                    known.memory == race.memory &&
                    known.first.site.instruction == race.first.site.instruction;
  if (!added && same) {
    known.begin = std::min(known.begin, race.begin);
    known.end = std::max(known.end, race.end);
  }
}

void Findings::add(const SharedFlag& shared) {
  flags_.try_emplace({shared.first.site.instruction, shared.second.site.instruction, shared.flag}, shared);
}

void Findings::merge(const Findings& other) {
  races_.insert(other.races_.begin(), other.races_.end());
  flags_.insert(other.flags_.begin(), other.flags_.end());
}

std::string Findings::text(const DescribeSite& describe) const {
  std::vector<std::string> lines;
  for (const auto& [key, race] : races_) lines.push_back(describe_race(describe, race));
  for (const auto& [key, shared] : flags_) lines.push_back(describe_flag(describe, shared));
  std::string text;
  for (size_t i = 0; i < std::min(lines.size(), kMostLines); ++i) text += (i == 0 ? "" : "\n") + lines[i];
  if (lines.size() > kMostLines) text += "\nand " + std::to_string(lines.size() - kMostLines) + " more";
  return text;
}

}  // namespace opennpu::race
