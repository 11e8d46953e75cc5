// What the timing model says about one launch. All times are in cycles of the chip's clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace opennpu::timing {

inline constexpr size_t kQueues = 4;  // load, store, matrix, vector: the first values of isa::Unit

// Why a queue did nothing: its next instruction was not issued yet; it waited for a flag that the load,
// store, matrix or vector queue sets; the vector queue had not emptied the accumulators that a new product
// needs; it had nothing to do up to the barrier or the end; its own unit was not ready; the other cores of a
// shared load had not come to it.
#define ONPU_STALLS(X) \
  X(issue) X(load) X(store) X(matrix) X(vector) X(accumulator) X(barrier) X(unit) X(cores)

enum class Stall : uint8_t { Issue, Load, Store, Matrix, Vector, Accumulator, Barrier, Unit, Cores };
inline constexpr size_t kStalls = 9;

struct QueueTimes {
  int64_t busy = 0;
  int64_t hbm_contention = 0;             // the part of busy that is there only because others used HBM too
  int64_t bank_conflicts = 0;             // the same for banks of the scratchpad
  std::array<int64_t, kStalls> stalls{};  // with busy they make the time

  bool operator==(const QueueTimes&) const = default;
};

struct SequencerTimes {
  int64_t issue = 0;
  int64_t scalar_load = 0;
  int64_t queue_full = 0;
  int64_t barrier = 0;
};

struct CoreTimes {
  SequencerTimes sequencer;
  std::array<QueueTimes, kQueues> queues;
};

// One source op, an entry of the program's locations: the stretches between barriers that end with a barrier
// of the op.
struct OpTimes {
  int64_t cycles = 0;
  int64_t stretches = 0;
  std::array<QueueTimes, kQueues> queues;  // over all cores: cycles · cores for each
  int64_t hbm_bytes = 0, shared_bytes = 0;
  int64_t macs = 0;
  int64_t row_macs = 0;  // as in Report
};

struct Report {
  int64_t cycles = 0;
  int64_t barriers = 0;
  uint64_t instructions = 0;
  int64_t bytes_loaded = 0, bytes_stored = 0;  // of HBM
  int64_t shared_bytes = 0;                    // that cores got of loads by others, beside these
  int64_t macs = 0;
  int64_t row_macs = 0;  // Σ macs · cycles a row; over the arrays' size it is the least time of the products
  std::vector<CoreTimes> cores;
  std::vector<OpTimes> ops;  // by location
};

}  // namespace opennpu::timing
