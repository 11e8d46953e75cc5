#include "device.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "error.h"

namespace opennpu {

namespace {

constexpr uint64_t kDefaultMaxInstructions = uint64_t{1} << 32;
constexpr uint64_t kMostMilliseconds = uint64_t{1} << 40;  // more than a clock's range would overflow

npu_chip_desc checked(npu_chip_desc chip, const npu_device_options& options) {
  if (options.hbm_bytes != 0) chip.hbm_bytes = options.hbm_bytes;
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw Error{NPU_ERROR_INVALID_ARGUMENT, std::string("chip description: ") + what};
  };
  require(std::memchr(chip.name, 0, sizeof chip.name) != nullptr, "the name has no end");
  require(chip.cores >= 1 && chip.cores <= 1024, "cores must be from 1 to 1024");
  require(chip.align_bytes >= 64 && std::has_single_bit(chip.align_bytes),
          "align_bytes must be a power of two of at least 64");
  const auto fits = [](uint64_t bytes, int bits) { return bytes >= 64 && bytes <= uint64_t{1} << bits; };
  require(fits(chip.spm_bytes, 32), "spm_bytes must be from 64 to 2^32");
  require(fits(chip.acc_bytes, 32), "acc_bytes must be from 64 to 2^32");
  require(fits(chip.hbm_bytes, 46), "hbm_bytes must be from 64 to 2^46");
  const auto small = [](uint32_t value) { return value >= 1 && value <= 65536; };
  require(small(chip.mx_k) && small(chip.mx_n) && small(chip.strip) && small(chip.pair),
          "mx_k, mx_n, strip and pair must be from 1 to 65536");
  require(small(chip.share_cores), "share_cores must be from 1 to 65536");
  return chip;
}

std::unique_ptr<Engine> make_engine(const npu_chip_desc& chip, const npu_device_options& options) {
  const std::string name = options.engine == nullptr ? "native" : options.engine;
  if (name == "native") return make_native_engine(chip);
  if (name == "reference") return make_reference_engine(chip);
  throw Error{NPU_ERROR_UNSUPPORTED,
              "no engine \"" + name + "\": the virtual chip has \"native\" and \"reference\""};
}

uint32_t thread_count(const npu_chip_desc& chip, const npu_device_options& options) {
  const uint32_t wanted =
      options.threads != 0 ? options.threads : std::max(1U, std::thread::hardware_concurrency());
  return std::min(wanted, chip.cores);
}

}  // namespace

CoreMemories::CoreMemories(const npu_chip_desc& chip) {
  for (uint32_t i = 0; i < chip.cores; ++i) {
    cores_.push_back({alloc(chip.spm_bytes), chip.spm_bytes, alloc(chip.acc_bytes), chip.acc_bytes});
  }
}

std::byte* CoreMemories::alloc(size_t bytes) {
  constexpr size_t kAlign = 64;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign));
  if (memory == nullptr) throw std::bad_alloc();
  blocks_.emplace_back(memory);
  return memory;
}

Device::Device(const npu_chip_desc& chip, const npu_device_options& options)
    : chip_(checked(chip, options)),
      max_instructions_(options.max_instructions != 0 ? options.max_instructions : kDefaultMaxInstructions),
      launch_limit_(std::min<uint64_t>(options.launch_limit_ms, kMostMilliseconds)),
      race_check_(options.race_check != 0),
      hides_memory_(options.hide_memory != 0),
      memory_(chip_.hbm_bytes, chip_.align_bytes),
      core_memories_(chip_),
      engine_(make_engine(chip_, options)),
      hbm_(memory_.base()),
      cores_(chip_, *engine_, hbm_, core_memories_.cores(), thread_count(chip_, options)) {}

void Device::check_args(const Program& program, std::span<const npu_arg> args) const {
  if (args.size() != program.args.size()) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, "the program takes " + std::to_string(program.args.size()) +
                                                " arguments, " + std::to_string(args.size()) + " were given"};
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const bool buffer = program.args[i] != ArgKind::Scalar;
    if (args[i].kind != (buffer ? NPU_ARG_BUFFER : NPU_ARG_SCALAR)) {
      throw Error{NPU_ERROR_INVALID_ARGUMENT,
                  "argument " + std::to_string(i) + " must be a " + (buffer ? "buffer" : "scalar")};
    }
    try {
      if (buffer) memory_.check(args[i].value, args[i].bytes);
    } catch (const Error& error) {
      throw Error{error.status, "argument " + std::to_string(i) + ": " + error.message};
    }
  }
}

void Device::run(const Program& program, std::span<const npu_arg> args) {
  std::lock_guard one_at_a_time(launching_);
  values_.clear();
  ranges_.clear();
  for (size_t i = 0; i < args.size(); ++i) {
    values_.push_back(static_cast<int64_t>(args[i].value));
    if (args[i].kind == NPU_ARG_BUFFER)
      ranges_.push_back({args[i].value, args[i].bytes, program.args[i] == ArgKind::Write});
  }
  hbm_.assign(ranges_);
  const auto describe = [&program](const Site& site) { return program.describe(site); };
  const auto observer = race_check_ ? make_race_checker(chip_, describe) : nullptr;

  const auto start = EventPoint::Clock::now();
  const LaunchResult result =
      cores_.run({program, values_, observer.get(), max_instructions_, launch_limit_});
  const auto time = EventPoint::Clock::now() - start;
  {
    std::lock_guard lock(mutex_);
    ++counters_.launches;
    counters_.instructions += result.counters.instructions;
    counters_.bytes_loaded += result.counters.bytes_loaded;
    counters_.bytes_stored += result.counters.bytes_stored;
    counters_.macs += result.counters.macs;
    counters_.busy_ns += static_cast<uint64_t>(std::chrono::nanoseconds(time).count());
  }
  if (result.status != NPU_OK) throw Error{result.status, result.message};
}

npu_counters Device::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

void Device::reset_counters() {
  std::lock_guard lock(mutex_);
  counters_ = {};
}

void Device::add_stream(std::shared_ptr<Stream> stream) {
  std::lock_guard lock(mutex_);
  streams_.insert(std::move(stream));
}

void Device::remove_stream(const std::shared_ptr<Stream>& stream) {
  std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

void Device::synchronize() {
  std::set<std::shared_ptr<Stream>> streams;  // another thread may destroy a stream meanwhile
  {
    std::lock_guard lock(mutex_);
    streams = streams_;
  }
  for (const auto& stream : streams) stream->wait();
  for (const auto& stream : streams) {
    if (const auto failure = stream->take_failure()) throw *failure;
  }
}

}  // namespace opennpu
