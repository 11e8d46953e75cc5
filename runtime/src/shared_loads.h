// Loads that several cores share: which cores, and whether all of them come to the same loads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine.h"

namespace opennpu {

// `count` cores from `first` on, `stride` apart.
struct CoreGroup {
  uint32_t first, stride, count;

  uint32_t operator[](uint32_t i) const { return first + i * stride; }
  auto operator<=>(const CoreGroup&) const = default;
};

inline bool is_shared(const isa::DmaLoad& op) { return op.share > 1; }

// The cores that share `op` where core `number` issues it. Throws Trap when the chip cannot.
CoreGroup sharing_cores(const isa::DmaLoad& op, uint32_t number, const npu_chip_desc& chip);

// A shared load that a core has issued.
struct SharedLoad {
  Site site;
  CoreGroup cores;
  uint64_t transfer;  // a hash of what all of them must agree on

  SharedLoad(const Site& site, const isa::DmaLoad& op, const CoreGroup& cores);
  bool meets(const SharedLoad& other) const { return cores == other.cores && transfer == other.transfer; }
};

// Of one core between two barriers: what a host keeps of them must end somewhere.
inline constexpr size_t kMaxSharedLoads = size_t{1} << 20;

// Lets the shared loads of all cores between two barriers meet, each core's in its order. Returns nothing
// when all have met, and else names two that cannot.
std::optional<std::string> meet(std::span<const std::vector<SharedLoad>* const> cores,
                                const std::function<std::string(const Site&)>& describe);

}  // namespace opennpu
