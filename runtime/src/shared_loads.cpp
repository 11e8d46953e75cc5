#include "shared_loads.h"

#include <algorithm>

namespace opennpu {

CoreGroup sharing_cores(const isa::DmaLoad& op, uint32_t number, const npu_chip_desc& chip) {
  if (op.share > int64_t{chip.share_cores}) {
    throw Trap{"a load for " + std::to_string(op.share) + " cores, on this chip at most " +
               std::to_string(chip.share_cores) + " share one"};
  }
  if (op.share_stride < 1) {
    throw Trap{"share_stride is " + std::to_string(op.share_stride) + ", it must be positive"};
  }
  const int64_t place = number / op.share_stride % op.share;
  const int64_t first = number - place * op.share_stride;
  if (op.share_stride >= int64_t{chip.cores} ||
      first + (op.share - 1) * op.share_stride >= int64_t{chip.cores}) {
    throw Trap{"a load for " + std::to_string(op.share) + " cores, " + std::to_string(op.share_stride) +
               " apart from core " + std::to_string(first) + " on: the chip has " +
               std::to_string(chip.cores) + " cores"};
  }
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(op.share_stride),
          static_cast<uint32_t>(op.share)};
}

// FNV-1a by words, the high bits of each step folded into the low ones.
SharedLoad::SharedLoad(const Site& site, const isa::DmaLoad& op, const CoreGroup& cores)
    : site(site), cores(cores), transfer(0xcbf29ce484222325) {
  for (const int64_t value : {op.src, op.n0, op.n1, op.n2, op.bytes, op.ss0, op.ss1, op.ss2}) {
    transfer = (transfer ^ static_cast<uint64_t>(value)) * 0x100000001b3;
    transfer ^= transfer >> 29;
  }
}

namespace {

class Meeting {
 public:
  Meeting(std::span<const std::vector<SharedLoad>* const> cores,
          const std::function<std::string(const Site&)>& describe)
      : cores_(cores), describe_(describe), next_(cores.size()) {}

  std::optional<std::string> run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (uint32_t core = 0; core < cores_.size(); ++core) moved |= advance(core);
    }
    for (uint32_t core = 0; core < cores_.size(); ++core) {
      if (head(core) != nullptr) return failure(core);
    }
    return std::nullopt;
  }

 private:
  const SharedLoad* head(uint32_t core) const {
    return next_[core] < cores_[core]->size() ? &(*cores_[core])[next_[core]] : nullptr;
  }

  // The first of `load`'s cores that has not come to it.
  std::optional<uint32_t> absent(const SharedLoad& load) const {
    for (uint32_t i = 0; i < load.cores.count; ++i) {
      const SharedLoad* other = head(load.cores[i]);
      if (other == nullptr || !other->meets(load)) return load.cores[i];
    }
    return std::nullopt;
  }

  // Lets as many loads as can meet whose first core this is.
  bool advance(uint32_t core) {
    bool moved = false;
    for (const SharedLoad* load; (load = head(core)) != nullptr && load->cores.first == core; moved = true) {
      if (absent(*load)) break;
      for (uint32_t i = 0; i < load->cores.count; ++i) ++next_[load->cores[i]];
    }
    return moved;
  }

  // Goes from core to core that is waited for: to one that comes to no load of the group, to one that has
  // another load for it, or round in a circle.
  std::string failure(uint32_t core) const {
    std::vector<bool> seen(cores_.size());
    for (;;) {
      const SharedLoad& load = *head(core);
      const uint32_t other = *absent(load);
      const SharedLoad* there = head(other);
      const std::string waits = describe_(load.site) + " on core " + std::to_string(core) +
                                ": the load is shared with core " + std::to_string(other);
      if (there == nullptr) return waits + ", which comes to no such load before its barrier or halt";
      const std::string comes = " comes to " + describe_(there->site);
      if (there->cores == load.cores) return waits + ", which" + comes + " instead: their operands differ";
      seen[core] = true;
      if (seen[other]) return "deadlock: " + waits + ", which first" + comes + " with other cores";
      core = other;
    }
  }

  const std::span<const std::vector<SharedLoad>* const> cores_;
  const std::function<std::string(const Site&)>& describe_;
  std::vector<size_t> next_;  // by core: its first load that has not met
};

}  // namespace

std::optional<std::string> meet(std::span<const std::vector<SharedLoad>* const> cores,
                                const std::function<std::string(const Site&)>& describe) {
  return Meeting(cores, describe).run();
}

}  // namespace opennpu
