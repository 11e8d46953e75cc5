// How threads wait for each other on the way of a launch.
#pragma once

#include <atomic>
#include <cstdint>

namespace opennpu {

// Returns once `value` is not `old`. Spins for some microseconds, letting other threads of a crowded
// machine run, then sleeps: who changes the value calls notify_all, which is cheap while nobody sleeps.
void wait_while_equal(const std::atomic<uint32_t>& value, uint32_t old);

}  // namespace opennpu
