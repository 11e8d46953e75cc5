// Where the host's time goes when the virtual chip runs a program: an observer that looks at the clock.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "engine.h"

namespace opennpu {

// What one source op took, over all cores and launches. An instruction's time includes the scalar
// instructions behind it, up to the next one that an observer sees.
struct OpProfile {
  static constexpr size_t kUnits = 5;  // isa::Unit
  std::array<uint64_t, kUnits> ns{};   // at work; what a barrier makes a core wait is left out
  uint64_t instructions = 0;
  uint64_t bytes_loaded = 0, bytes_stored = 0, macs = 0;  // as in npu_counters
};

class Profiler final : public Observer {
 public:
  // `locations`: how many source ops the program has.
  explicit Profiler(size_t locations) : locations_(locations) {}

  void begin(unsigned cores) override;
#define X(NAME)                                                                   \
  void before(const Core& core, const Site& site, const isa::NAME& op) override { \
    note(core, site, isa::NAME::kUnit, std::is_same_v<isa::NAME, isa::Barrier>);  \
    static_cast<void>(op);                                                        \
  }
  ONPU_OBSERVED_INSTRUCTIONS(X)
#undef X
  void barrier_complete() override {}
  std::string finish() override;

  void reset() { ops_.assign(locations_, {}); }

  // By location; not during a launch.
  const std::vector<OpProfile>& ops() const { return ops_; }

 private:
  using Clock = std::chrono::steady_clock;

  // Written by the thread that runs the core only.
  struct alignas(64) Track {
    std::vector<OpProfile> ops;
    OpProfile* current = nullptr;  // the op of the instruction that runs
    isa::Unit unit{};
    bool waits = false;
    Clock::time_point since;
    npu_counters counters{};
  };

  void note(const Core& core, const Site& site, isa::Unit unit, bool waits);

  const size_t locations_;
  std::vector<Track> tracks_;
  std::vector<OpProfile> ops_{locations_};
};

}  // namespace opennpu
