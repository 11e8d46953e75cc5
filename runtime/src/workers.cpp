#include "workers.h"

#include <exception>
#include <string>

#include "error.h"

namespace opennpu {

namespace {

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void wait_while_equal(const std::atomic<uint32_t>& value, uint32_t old) {
  constexpr int kSpins = 4000, kYields = 200;
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_cpu();
  }
  for (int i = 0; i < kYields; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    std::this_thread::yield();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

Workers::Workers(uint32_t count) {
  try {
    for (uint32_t worker = 1; worker < count; ++worker)
      threads_.emplace_back([this, worker] { serve(worker); });
  } catch (const std::exception& error) {  // std::system_error or std::bad_alloc
    stop();
    throw Error{NPU_ERROR_OUT_OF_MEMORY,
                "the host cannot start " + std::to_string(count) + " threads: " + error.what()};
  }
}

Workers::~Workers() { stop(); }

void Workers::stop() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::run(const std::function<void(uint32_t)>& task) {
  task_ = &task;
  busy_.store(static_cast<uint32_t>(threads_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  task(0);
  for (uint32_t left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_while_equal(busy_, left);
}

void Workers::serve(uint32_t worker) {
  for (uint32_t seen = 0;; ++seen) {
    wait_while_equal(generation_, seen);
    if (stopping_) return;
    (*task_)(worker);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_all();
  }
}

}  // namespace opennpu
