// Fuzzes the loader and both engines through the driver interface: `fuzz_image [programs] [seed]`.
//
// Programs are made at random from the table of instructions, then damaged. Each must either be
// refused, fail, or run; the memory beside its buffers and what it may only read must stay as it was. Built
// with OPENNPU_SANITIZE, an access outside the memories ends the run.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "isa_gen.h"
#include "opennpu/npu.h"

namespace {

using namespace opennpu;

constexpr uint64_t kFingerprint = 0x0123456789abcdef;
constexpr uint64_t kBufferBytes = 4096;
constexpr uint32_t kArgKinds[] = {0, 1, 2, 2};  // scalar, read, written, written

npu_chip_desc small_chip() {
  npu_chip_desc chip{};
  std::strcpy(chip.name, "fuzz");
  chip.fingerprint = kFingerprint;
  chip.cores = 2;
  chip.align_bytes = 64;
  chip.clock_hz = 1;
  chip.spm_bytes = 8192;
  chip.acc_bytes = 4096;
  chip.hbm_bytes = 1 << 16;
  chip.mx_k = chip.mx_n = 32;
  chip.strip = 16;
  chip.pair = 2;
  chip.share_cores = 2;
  return chip;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t n) { return engine_() % n; }
  bool chance(uint64_t percent) { return below(100) < percent; }
  uint64_t bits() { return engine_(); }

  // Mostly what a program would hold, sometimes what breaks arithmetic.
  int64_t operand() {
    constexpr int64_t kExtremes[] = {-1, INT64_MAX, INT64_MIN, int64_t{1} << 31, int64_t{1} << 40, -4096};
    if (chance(4)) return kExtremes[below(std::size(kExtremes))];
    if (chance(30)) return static_cast<int64_t>(below(8));
    return static_cast<int64_t>(below(chance(50) ? 16 : 256) * 8);
  }

 private:
  std::mt19937_64 engine_;
};

// ---- programs

class Generator {
 public:
  explicit Generator(Random& random) : random_(random) {}

  // A text whose encoding and nesting are right.
  std::vector<uint64_t> text() {
    words_.clear();
    prologue();
    const uint64_t count = 1 + random_.below(12);
    for (uint64_t i = 0; i < count; ++i) statement(0);
    emit(isa::Opcode::Halt);
    return words_;
  }

 private:
  // The arguments into r2, r3, …, so that addresses can be right.
  void prologue() {
    for (uint64_t i = 0; i < std::size(kArgKinds); ++i) {
      words_.insert(words_.end(), {head(isa::Opcode::SArg, 3), 2 + i, i});
    }
  }

  void statement(int depth) {
    const isa::Instruction& row = isa::kInstructions[random_.below(std::size(isa::kInstructions))];
    switch (row.opcode) {
      case isa::Opcode::Halt:
      case isa::Opcode::EndLoop:
      case isa::Opcode::EndIf:
        return;
      case isa::Opcode::Loop:
      case isa::Opcode::If:
        emit(row.opcode);
        if (depth < 3) statement(depth + 1);
        emit(row.opcode == isa::Opcode::Loop ? isa::Opcode::EndLoop : isa::Opcode::EndIf);
        return;
      case isa::Opcode::SetFlag:  // with its wait, else every program ends in the same trap
        words_.insert(words_.end(), {head(isa::Opcode::SetFlag, 4), random_.below(4), 1, 0});
        words_.insert(words_.end(), {head(isa::Opcode::WaitFlag, 4), random_.below(4), 1, 0});
        return;
      default:
        emit(row.opcode);
    }
  }

  void emit(isa::Opcode opcode) {
    const size_t at = words_.size();
    words_.push_back(0);
    for (const isa::Instruction& row : isa::kInstructions) {
      if (row.opcode != opcode) continue;
      for (const isa::Field& f : row.fields) field(f);
    }
    words_[at] = head(opcode, words_.size() - at);
  }

  void field(const isa::Field& field) {
    switch (field.kind) {
      case isa::Kind::Reg:
        words_.push_back(8 + random_.below(8));
        break;
      case isa::Kind::Imm:
        words_.push_back(field.enum_size != 0 ? enumerator(field) : constant(field.name));
        break;
      default:
        value(field.name);
    }
  }

  uint64_t enumerator(const isa::Field& field) {
    for (;;) {
      const uint64_t choice = random_.below(field.enum_size);
      if (field.allowed >> choice & 1) return choice;
    }
  }

  void value(const std::string& name) {
    words_.push_back(constant(name));
    if (!random_.chance(name == "src" || name == "dst" ? 50 : 5)) {
      words_.push_back(0);
    } else {
      const uint64_t reg = random_.chance(70) ? 3 + random_.below(3) : random_.below(16);
      words_.insert(words_.end(), {1 | reg << 8, random_.chance(90) ? 1 : random_.bits()});
    }
  }

  // Mostly within the range of a field of this name, so that programs get far.
  uint64_t constant(const std::string& name) {
    static const std::map<std::string, std::pair<uint64_t, uint64_t>> ranges = {
        {"group", {1, 8}},  {"step", {1, 8}},  {"k", {0, 32}},          {"n", {0, 32}},   {"index", {0, 3}},
        {"count", {0, 8}},  {"rows", {0, 8}},  {"d0", {1, 4}},          {"d1", {1, 4}},   {"d2", {1, 16}},
        {"n0", {1, 4}},     {"n1", {1, 4}},    {"n2", {1, 4}},          {"flag", {0, 3}}, {"b", {1, 100}},
        {"causal", {0, 1}}, {"share", {0, 2}}, {"share_stride", {1, 1}}};
    const auto range = ranges.find(name);
    if (range == ranges.end() || random_.chance(3)) return static_cast<uint64_t>(random_.operand());
    return range->second.first + random_.below(range->second.second - range->second.first + 1);
  }

  static uint64_t head(isa::Opcode opcode, uint64_t words) {
    return static_cast<uint64_t>(opcode) | words << 8;
  }

  Random& random_;
  std::vector<uint64_t> words_;
};

std::vector<uint8_t> image_of(const std::vector<uint64_t>& text) {
  std::vector<uint8_t> out;
  const auto put = [&out](const void* data, size_t bytes) {
    const auto* first = static_cast<const uint8_t*>(data);
    out.insert(out.end(), first, first + bytes);
  };
  const std::string location = "fuzz.py:1";
  const uint32_t versions[] = {1, isa::kVersion};
  const uint64_t words = text.size(), location_bytes = location.size();
  const uint32_t counts[] = {std::size(kArgKinds), 1};
  const uint32_t offsets[] = {0, static_cast<uint32_t>(location.size())};
  put("ONPUPROG", 8);
  put(versions, sizeof versions);
  put(&kFingerprint, 8);
  put(&words, 8);
  put(counts, sizeof counts);
  put(&location_bytes, 8);
  put(kArgKinds, sizeof kArgKinds);
  put(text.data(), 8 * text.size());
  put(offsets, sizeof offsets);
  put(location.data(), location.size());
  return out;
}

// ---- damage

void damage_words(Random& random, std::vector<uint64_t>& text) {
  const size_t at = random.below(text.size());
  switch (random.below(5)) {
    case 0:
      text[at] ^= uint64_t{1} << random.below(64);
      break;
    case 1:
      text[at] = static_cast<uint64_t>(random.operand());
      break;
    case 2:
      text.erase(text.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    case 3:
      text.insert(text.begin() + static_cast<std::ptrdiff_t>(at), random.bits());
      break;
    default:
      text[at] = random.bits();
  }
}

void damage_bytes(Random& random, std::vector<uint8_t>& image) {
  constexpr size_t kHeader = 64;
  switch (random.below(3)) {
    case 0:
      image.resize(random.below(image.size()));
      break;
    case 1:
      image[random.below(std::min(kHeader, image.size()))] = static_cast<uint8_t>(random.bits());
      break;
    default:
      image[random.below(image.size())] ^= static_cast<uint8_t>(1 << random.below(8));
  }
}

std::vector<uint8_t> next_image(Random& random) {
  std::vector<uint64_t> text = Generator(random).text();
  if (random.chance(30)) damage_words(random, text);
  std::vector<uint8_t> image = image_of(text);
  if (random.chance(15)) damage_bytes(random, image);
  return image;
}

// ---- running

class Target {
 public:
  Target(const char* engine, bool race_check) : driver_(npu_get_driver(NPU_DRIVER_VERSION)) {
    npu_device_options options{};
    options.engine = engine;
    options.race_check = race_check;
    options.max_instructions = 500;
    const npu_chip_desc chip = small_chip();
    check(driver_->device_open(&chip, &options, &device_));
    check(driver_->stream_create(device_, &stream_));
    for (npu_address& address : buffers_) {
      check(driver_->memory_alloc(device_, kBufferBytes, &address));
      std::memset(host(address), kPattern, kBufferBytes);
    }
  }
  ~Target() {
    driver_->stream_destroy(stream_);
    driver_->device_close(device_);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  npu_status run(const std::vector<uint8_t>& image) {
    // A copy of its own size, so that a read past the end is found.
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[image.size()]);
    std::copy(image.begin(), image.end(), exact.get());
    npu_program program;
    npu_status status = driver_->program_load(device_, exact.get(), image.size(), &program);
    if (status != NPU_OK) return status;
    // buffers_[0] is read only, [1] and [3] are written, [2] and [4] belong to nobody.
    const npu_arg args[] = {{NPU_ARG_SCALAR, 3, 0},
                            {NPU_ARG_BUFFER, buffers_[0], kBufferBytes},
                            {NPU_ARG_BUFFER, buffers_[1], kBufferBytes},
                            {NPU_ARG_BUFFER, buffers_[3], kBufferBytes}};
    status = driver_->launch(stream_, program, args, std::size(args));
    if (status == NPU_OK) status = driver_->stream_synchronize(stream_);
    driver_->program_unload(program);
    for (const int untouched : {0, 2, 4}) {
      const uint8_t* bytes = host(buffers_[untouched]);
      if (std::any_of(bytes, bytes + kBufferBytes, [](uint8_t b) { return b != kPattern; })) {
        fprintf(stderr, "a program wrote to memory that it may not write\n");
        std::abort();
      }
    }
    return status;
  }

  const char* error() const { return driver_->last_error(); }

 private:
  static constexpr uint8_t kPattern = 0x01;  // as an index it is small, as a float harmless

  void check(npu_status status) {
    if (status == NPU_OK) return;
    fprintf(stderr, "%s\n", driver_->last_error());
    std::abort();
  }

  uint8_t* host(npu_address address) {
    void* pointer;
    check(driver_->memory_host_pointer(device_, address, &pointer));
    return static_cast<uint8_t*>(pointer);
  }

  const npu_driver* driver_;
  npu_device device_ = nullptr;
  npu_stream stream_ = nullptr;
  npu_address buffers_[5] = {};
};

}  // namespace

int main(int argc, char** argv) {
  const uint64_t programs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  Target targets[] = {{"reference", false}, {"native", false}, {"reference", true}};
  std::map<npu_status, uint64_t> outcomes;
  for (uint64_t i = 0; i < programs; ++i) {
    Random random(seed + i);
    const std::vector<uint8_t> image = next_image(random);
    for (Target& target : targets) {
      const npu_status status = target.run(image);
      ++outcomes[status];
      if (status == NPU_ERROR_INTERNAL || status == NPU_NOT_READY) {
        fprintf(stderr, "program %llu: status %d: %s\n", static_cast<unsigned long long>(seed + i), status,
                target.error());
        return 1;
      }
    }
  }
  printf("%llu programs:", static_cast<unsigned long long>(programs));
  for (const auto& [status, count] : outcomes)
    printf(" status %d: %llu", status, static_cast<unsigned long long>(count));
  printf("\n");
  return 0;
}
