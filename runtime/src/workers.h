// The threads that run the cores of the virtual chip, and the barrier between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace opennpu {

// Spins, then yields, then sleeps: a machine may have fewer CPUs than the chip has cores.
void wait_while_equal(const std::atomic<uint32_t>& value, uint32_t old);

class SpinBarrier {
 public:
  explicit SpinBarrier(uint32_t threads) : threads_(threads) {}

  // Returns once all threads have arrived and one of them has run `complete`.
  template <typename Complete>
  void arrive(Complete complete) {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      complete();
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
    } else {
      wait_while_equal(phase_, phase);
    }
  }

 private:
  const uint32_t threads_;
  std::atomic<uint32_t> arrived_{0}, phase_{0};
};

// Threads that live as long as the device. The calling thread is worker 0.
class Workers {
 public:
  explicit Workers(uint32_t count);  // throws Error
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  uint32_t count() const { return static_cast<uint32_t>(threads_.size()) + 1; }

  // Runs task(worker) on every worker and returns when all have returned. One call at a time; the
  // task does not throw.
  void run(const std::function<void(uint32_t)>& task);

 private:
  void serve(uint32_t worker);
  void stop();

  const std::function<void(uint32_t)>* task_ = nullptr;
  std::atomic<uint32_t> generation_{0}, busy_{0};
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace opennpu
