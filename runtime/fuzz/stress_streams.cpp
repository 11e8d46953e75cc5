// Launches from several threads on streams of their own and on one that they share: `stress_streams
// [rounds]`. Checks what the programs wrote, and that work on one stream keeps its order. Built with
// OPENNPU_SANITIZE=thread, an unordered access of two threads ends the run.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <thread>
#include <vector>

#include "isa_gen.h"
#include "opennpu/npu.h"

namespace {

using namespace opennpu;

constexpr unsigned kCores = 4, kHostThreads = 3;
constexpr uint64_t kRow = 256, kBytes = kCores * kRow;  // a row of every core

const npu_driver& driver() { return *npu_get_driver(NPU_DRIVER_VERSION); }

void check(npu_status status) {
  if (status == NPU_OK) return;
  fprintf(stderr, "%s\n", driver().last_error());
  std::abort();
}

npu_chip_desc chip() {
  npu_chip_desc chip{};
  std::strcpy(chip.name, "stress");
  chip.cores = kCores;
  chip.align_bytes = 64;
  chip.clock_hz = 1;
  chip.spm_bytes = chip.acc_bytes = 1024;
  chip.hbm_bytes = 1 << 20;
  chip.mx_k = chip.mx_n = 16;
  chip.strip = 16;
  chip.pair = 2;
  chip.share_cores = kCores;
  return chip;
}

// ---- the program

using Words = std::vector<uint64_t>;

Words constant(uint64_t c) { return {c, 0}; }
Words affine(uint64_t reg, uint64_t core_coefficient) {  // reg + core · coefficient
  return {0, 2 | reg << 8 | 0 << 16, 1, core_coefficient};
}

void emit(Words& text, isa::Opcode opcode, std::initializer_list<Words> fields) {
  const size_t at = text.size();
  text.push_back(0);
  for (const Words& field : fields) text.insert(text.end(), field.begin(), field.end());
  text[at] = static_cast<uint64_t>(opcode) | (text.size() - at) << 8;
}

// Every core's row of r2 to r3, then after a barrier the same back to front: `times` times.
std::vector<uint8_t> image(uint64_t times) {
  const auto walk = [](Words to, Words from) {
    Words out = to;
    out.insert(out.end(), from.begin(), from.end());
    for (uint64_t count : {1, 1, 1}) out.insert(out.end(), {count, 0});
    out.insert(out.end(), {kRow, 0});
    out.resize(out.size() + 12);
    return out;
  };
  const auto unshared = [](Words out) {
    out.resize(out.size() + 4);
    return out;
  };
  using isa::Opcode;
  Words text;
  for (uint64_t arg : {0, 1}) emit(text, Opcode::SArg, {{2 + arg}, {arg}});
  emit(text, Opcode::Loop, {{5}, constant(0), constant(times), constant(1)});
  emit(text, Opcode::DmaLoad, {unshared(walk(constant(0), affine(2, kRow)))});
  emit(text, Opcode::DmaStore, {walk(affine(3, kRow), constant(0))});
  emit(text, Opcode::Barrier, {});
  emit(text, Opcode::SAlu,
       {{uint64_t(isa::Alu::Add)}, {4}, {(kCores - 1) * kRow, 1 | 3 << 8, 1}, constant(0)});
  emit(text, Opcode::DmaLoad, {unshared(walk(constant(0), affine(4, -kRow)))});
  emit(text, Opcode::Barrier, {});
  emit(text, Opcode::DmaStore, {walk(affine(3, kRow), constant(0))});
  emit(text, Opcode::Barrier, {});
  emit(text, Opcode::EndLoop, {});
  emit(text, Opcode::Halt, {});

  const uint32_t head[] = {1, isa::kVersion, 0, 0};
  const uint64_t words = text.size(), no_text = 0;
  const uint32_t counts[] = {2, 0}, kinds[] = {1, 2}, offsets[] = {0};
  std::vector<uint8_t> out;
  const auto put = [&out](const void* data, size_t bytes) {
    const auto* first = static_cast<const uint8_t*>(data);
    out.insert(out.end(), first, first + bytes);
  };
  put("ONPUPROG", 8);
  put(head, sizeof head);
  put(&words, 8);
  put(counts, sizeof counts);
  put(&no_text, 8);
  put(kinds, sizeof kinds);
  put(text.data(), 8 * text.size());
  put(offsets, sizeof offsets);
  return out;
}

// ---- the threads

struct Buffer {
  explicit Buffer(npu_device device) {
    check(driver().memory_alloc(device, kBytes, &address));
    void* pointer;
    check(driver().memory_host_pointer(device, address, &pointer));
    host = static_cast<uint8_t*>(pointer);
  }
  npu_arg arg() const { return {NPU_ARG_BUFFER, address, kBytes}; }
  npu_address address;
  uint8_t* host;
};

void expect(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "wrong: %s\n", what);
  std::abort();
}

void work(npu_device device, npu_stream shared, npu_program reverse, int rounds) {
  npu_stream own;
  npu_event event;
  check(driver().stream_create(device, &own));
  check(driver().event_create(device, &event));
  Buffer first(device), second(device), third(device);
  for (int round = 0; round < rounds; ++round) {
    for (uint64_t i = 0; i < kBytes; ++i) first.host[i] = static_cast<uint8_t>(i / kRow + round);
    const npu_arg there[] = {first.arg(), second.arg()}, back[] = {second.arg(), third.arg()};
    for (int i = 0; i < 1 + round % 40; ++i) check(driver().launch(own, reverse, there, 2));
    check(driver().event_record(event, own));
    check(driver().stream_wait_event(shared, event));
    check(driver().launch(shared, reverse, back, 2));
    if (round % 3 == 0) {
      check(driver().event_record(event, shared));
      check(driver().event_synchronize(event));
    } else {
      check(round % 3 == 1 ? driver().stream_synchronize(shared) : driver().device_synchronize(device));
    }
    expect(std::memcmp(first.host, third.host, kBytes) == 0, "twice reversed");
  }
  driver().event_destroy(event);
  driver().stream_destroy(own);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
  const npu_chip_desc desc = chip();
  npu_device_options options{};
  options.threads = 2;
  npu_device device;
  npu_stream shared;
  check(driver().device_open(&desc, &options, &device));
  check(driver().stream_create(device, &shared));
  for (const uint64_t times : {1, 21}) {  // shorter and longer than it takes for sleepers to be called
    const std::vector<uint8_t> bytes = image(times);
    npu_program reverse;
    check(driver().program_load(device, bytes.data(), bytes.size(), &reverse));
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kHostThreads; ++i) threads.emplace_back(work, device, shared, reverse, rounds);
    for (std::thread& thread : threads) thread.join();
    driver().program_unload(reverse);
  }
  driver().stream_destroy(shared);
  driver().device_close(device);
  printf("%u threads, %d rounds\n", kHostThreads, rounds);
  return 0;
}
