// A driver that fails on request, for tests: the virtual chip behind a table whose functions look for
// an order in the file that FAULTY_DRIVER_ORDER names, or in faulty_driver_order(). An order is a line
//
//   FUNCTION N STATUS       the N-th call of the function from now returns the status (a number)
//   launch N corrupt ARG    fills the buffer of this argument with 0x7f bytes ahead of the N-th launch that
//                           has as many arguments as ARG says: 5/20 is number 5 of 20
//   launch N run FILE       launches the program image in the file, which takes no arguments, instead
//
// and holds for one call; the file is removed when it is read, and FILE.done appears when the order is
// carried out. FAULTY_DRIVER_CHIP is the path of the virtual chip's library.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "opennpu/npu.h"

namespace {

struct Order {
  std::string function;
  unsigned calls = 0;  // until it is carried out; 0: there is none
  std::string what, operand;
};

std::mutex mutex;  // of what follows
Order order;
std::unordered_map<npu_stream, npu_device> device_of;
thread_local std::string message;  // of this thread's last failure; empty: the chip's own

const npu_driver& chip() {
  static const npu_driver* const table = [] {
    void* library = dlopen(std::getenv("FAULTY_DRIVER_CHIP"), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) std::abort();
    return reinterpret_cast<npu_get_driver_fn>(dlsym(library, "npu_get_driver"))(NPU_DRIVER_VERSION);
  }();
  return *table;
}

void set_order(const std::string& text) {
  order = {};
  std::istringstream(text) >> order.function >> order.calls >> order.what >> order.operand;
}

void read_order() {
  const char* path = std::getenv("FAULTY_DRIVER_ORDER");
  if (path == nullptr || access(path, R_OK) != 0) return;
  std::string text;
  std::getline(std::ifstream(path), text);
  unlink(path);
  set_order(text);
}

// The order that is for this call, which has so many arguments if it is a launch.
Order take(const char* function, unsigned arguments = 0) {
  const std::lock_guard lock(mutex);
  read_order();
  if (order.function != function || order.calls == 0) return {};
  if (order.what == "corrupt" && !order.operand.ends_with("/" + std::to_string(arguments))) return {};
  if (--order.calls != 0) return {};
  if (const char* path = std::getenv("FAULTY_DRIVER_ORDER")) std::ofstream(std::string(path) + ".done");
  return std::exchange(order, {});
}

npu_status fail(const char* function, int status) {
  message = std::string("injected failure of ") + function;
  return static_cast<npu_status>(status);
}

const char* last_error() { return message.empty() ? chip().last_error() : message.c_str(); }

// Calls the chip's function of this name unless the order is to fail.
template <typename... Args>
npu_status call(const char* name, npu_status (*function)(Args...), Args... args) {
  const Order now = take(name);
  message.clear();
  if (now.what.empty()) return function(args...);
  if (std::string_view(name).ends_with("synchronize")) function(args...);  // waits even when it fails
  return fail(name, std::stoi(now.what));
}

#define FAULTY(NAME, PARAMETERS, ARGUMENTS) \
  npu_status NAME PARAMETERS { return call ARGUMENTS; }
#define AS(NAME) #NAME, chip().NAME

FAULTY(device_open, (const npu_chip_desc* c, const npu_device_options* o, npu_device* d),
       (AS(device_open), c, o, d))
FAULTY(device_synchronize, (npu_device d), (AS(device_synchronize), d))
FAULTY(device_counters, (npu_device d, npu_counters* c), (AS(device_counters), d, c))
FAULTY(device_reset_counters, (npu_device d), (AS(device_reset_counters), d))
FAULTY(memory_alloc, (npu_device d, uint64_t n, npu_address* a), (AS(memory_alloc), d, n, a))
FAULTY(memory_free, (npu_device d, npu_address a), (AS(memory_free), d, a))
FAULTY(memory_info, (npu_device d, uint64_t* t, uint64_t* f), (AS(memory_info), d, t, f))
FAULTY(memory_host_pointer, (npu_device d, npu_address a, void** p), (AS(memory_host_pointer), d, a, p))
FAULTY(stream_synchronize, (npu_stream s), (AS(stream_synchronize), s))
FAULTY(stream_query, (npu_stream s), (AS(stream_query), s))
FAULTY(copy_to_device, (npu_stream s, npu_address a, const void* p, uint64_t n),
       (AS(copy_to_device), s, a, p, n))
FAULTY(copy_to_host, (npu_stream s, void* p, npu_address a, uint64_t n), (AS(copy_to_host), s, p, a, n))
FAULTY(copy_on_device, (npu_stream s, npu_address a, npu_address b, uint64_t n),
       (AS(copy_on_device), s, a, b, n))
FAULTY(program_load, (npu_device d, const void* i, uint64_t n, npu_program* p),
       (AS(program_load), d, i, n, p))
FAULTY(event_create, (npu_device d, npu_event* e), (AS(event_create), d, e))
FAULTY(event_record, (npu_event e, npu_stream s), (AS(event_record), e, s))
FAULTY(stream_wait_event, (npu_stream s, npu_event e), (AS(stream_wait_event), s, e))
FAULTY(event_query, (npu_event e), (AS(event_query), e))
FAULTY(event_synchronize, (npu_event e), (AS(event_synchronize), e))
FAULTY(event_elapsed, (npu_event a, npu_event b, int64_t* n), (AS(event_elapsed), a, b, n))

npu_status stream_create(npu_device device, npu_stream* stream) {
  const npu_status status = call(AS(stream_create), device, stream);
  const std::lock_guard lock(mutex);
  if (status == NPU_OK) device_of[*stream] = device;
  return status;
}

void stream_destroy(npu_stream stream) {
  chip().stream_destroy(stream);
  const std::lock_guard lock(mutex);
  device_of.erase(stream);
}

// The copy is done before the caller can see the memory again: it runs ahead of the launch.
void corrupt(npu_stream stream, const npu_arg& arg) {
  const std::vector<char> garbage(arg.bytes, 0x7f);
  if (chip().copy_to_device(stream, arg.value, garbage.data(), arg.bytes) == NPU_OK) {
    chip().stream_synchronize(stream);
  }
}

// The program stays loaded, as the launch is still to run.
npu_program load(npu_stream stream, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  const std::lock_guard lock(mutex);
  npu_program program = nullptr;
  chip().program_load(device_of.at(stream), image.data(), image.size(), &program);
  return program;
}

npu_status launch(npu_stream stream, npu_program program, const npu_arg* args, uint32_t count) {
  const Order now = take("launch", count);
  message.clear();
  if (now.what == "run") return chip().launch(stream, load(stream, now.operand), nullptr, 0);
  if (now.what == "corrupt") {
    corrupt(stream, args[std::stoul(now.operand)]);
  } else if (!now.what.empty()) {
    return fail("launch", std::stoi(now.what));
  }
  return chip().launch(stream, program, args, count);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void faulty_driver_order(const char* text) {
  const std::lock_guard lock(mutex);
  set_order(text);
}

extern "C" __attribute__((visibility("default"))) const npu_driver* npu_get_driver(uint32_t version) {
  if (version != NPU_DRIVER_VERSION) return nullptr;
  static const npu_driver table = [] {
    npu_driver faulty = chip();
    faulty.name = "faulty";
    faulty.last_error = last_error;
#define TAKE(NAME) faulty.NAME = NAME;
    TAKE(device_open)
    TAKE(device_synchronize)
    TAKE(device_counters)
    TAKE(device_reset_counters)
    TAKE(memory_alloc)
    TAKE(memory_free)
    TAKE(memory_info)
    TAKE(memory_host_pointer)
    TAKE(stream_create)
    TAKE(stream_destroy)
    TAKE(stream_synchronize)
    TAKE(stream_query)
    TAKE(copy_to_device)
    TAKE(copy_to_host)
    TAKE(copy_on_device)
    TAKE(program_load)
    TAKE(launch)
    TAKE(event_create)
    TAKE(event_record)
    TAKE(stream_wait_event)
    TAKE(event_query)
    TAKE(event_synchronize)
    TAKE(event_elapsed)
    return faulty;
  }();
  return &table;
}
