#include "waiting.h"

#include <chrono>
#include <thread>

namespace opennpu {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(50);  // about what a sleeper's waking costs
constexpr int kPauses = 32;                            // below a microsecond between two yields

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void wait_while_equal(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPauses; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause_cpu();
    }
    std::this_thread::yield();
  } while (Clock::now() < end);
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace opennpu
