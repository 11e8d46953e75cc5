// Banks of the scratchpad: equal consecutive parts, each with a port that the units share.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "../bounds.h"

namespace opennpu::timing {

inline constexpr int64_t kMostBanks = 64;

// What one instruction asks of the scratchpad: the banks that it touches, and bytes a cycle of each.
struct BankUse {
  uint64_t banks = 0;  // bit by bit
  double rate = 0;

  // Adds up all operands of an instruction: `bytes` gathers what they move.
  void touch(const Extent& extent, int64_t bank_bytes) {
    const int64_t first = extent.begin / bank_bytes;
    const int64_t last = std::min((extent.end - 1) / bank_bytes, kMostBanks - 1);
    for (int64_t bank = first; bank <= last; ++bank) banks |= uint64_t{1} << bank;
  }

  // The bytes are moved evenly: over the banks, over the cycles.
  void spread(int64_t bytes, double cycles) {
    rate = banks == 0 || cycles == 0 ? 0 : static_cast<double>(bytes) / (std::popcount(banks) * cycles);
  }
};

}  // namespace opennpu::timing
