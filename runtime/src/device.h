// The virtual chip: its memories, engine, threads and streams.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine.h"
#include "launch.h"
#include "memory.h"
#include "program.h"
#include "stream.h"

namespace opennpu {

// Scratchpad and accumulator of every core.
class CoreMemories {
 public:
  explicit CoreMemories(const npu_chip_desc& chip);
  std::span<const CoreMemory> cores() const { return cores_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::byte* alloc(size_t bytes);

  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
  std::vector<CoreMemory> cores_;
};

class Device {
 public:
  // Throws Error.
  Device(const npu_chip_desc& chip, const npu_device_options& options);

  const npu_chip_desc& chip() const { return chip_; }
  Memory& memory() { return memory_; }
  bool hides_memory() const { return hides_memory_; }

  // Checks the arguments against the program. Throws Error.
  void check_args(const Program& program, std::span<const npu_arg> args) const;

  // Runs a launch, one at a time. Throws Error.
  void run(const Program& program, std::span<const npu_arg> args);

  npu_counters counters() const;
  void reset_counters();

  void add_stream(std::shared_ptr<Stream> stream);
  void remove_stream(const std::shared_ptr<Stream>& stream);

  // Waits for all streams; throws the failure of one of them and leaves the others theirs.
  void synchronize();

 private:
  const npu_chip_desc chip_;
  const uint64_t max_instructions_;
  const std::chrono::milliseconds launch_limit_;
  const bool race_check_;
  const bool hides_memory_;
  Memory memory_;
  CoreMemories core_memories_;
  std::unique_ptr<Engine> engine_;
  std::mutex launching_;  // held during a launch, which uses what follows
  Hbm hbm_;
  std::vector<int64_t> values_;
  std::vector<Hbm::Range> ranges_;
  Cores cores_;
  mutable std::mutex mutex_;  // of what follows
  npu_counters counters_{};
  std::set<std::shared_ptr<Stream>> streams_;
};

}  // namespace opennpu
