#include "profiler.h"

namespace opennpu {

void Profiler::begin(unsigned cores) {
  tracks_.assign(cores, Track{});
  for (Track& track : tracks_) track.ops.resize(locations_);
}

// Ends the instruction before, begins this one.
void Profiler::note(const Core& core, const Site& site, isa::Unit unit, bool waits) {
  Track& track = tracks_[core.number];
  const Clock::time_point now = Clock::now();
  if (OpProfile* op = track.current) {
    const auto time = std::chrono::nanoseconds(now - track.since).count();
    if (!track.waits) op->ns[static_cast<size_t>(track.unit)] += static_cast<uint64_t>(time);
    op->instructions += core.counters.instructions - track.counters.instructions;
    op->bytes_loaded += core.counters.bytes_loaded - track.counters.bytes_loaded;
    op->bytes_stored += core.counters.bytes_stored - track.counters.bytes_stored;
    op->macs += core.counters.macs - track.counters.macs;
  }
  track.current = &track.ops[site.location];
  track.unit = unit;
  track.waits = waits;
  track.counters = core.counters;
  track.since = Clock::now();
}

std::string Profiler::finish() {
  for (const Track& track : tracks_)
    for (size_t i = 0; i < locations_; ++i) {
      const OpProfile& from = track.ops[i];
      OpProfile& to = ops_[i];
      for (size_t unit = 0; unit < OpProfile::kUnits; ++unit) to.ns[unit] += from.ns[unit];
      to.instructions += from.instructions;
      to.bytes_loaded += from.bytes_loaded;
      to.bytes_stored += from.bytes_stored;
      to.macs += from.macs;
    }
  return {};
}

}  // namespace opennpu
