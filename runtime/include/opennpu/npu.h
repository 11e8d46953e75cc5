// The OpenNPU driver interface: what a chip vendor implements and the runtime calls.
//
// A driver is a table of functions obtained from `npu_get_driver`. The virtual chip is one
// driver; a shared library that exports `npu_get_driver` can be named in its place.
//
// Failure. Functions that can fail return a status; `last_error` then gives the message, for the
// calling thread, until its next failing call. A call that fails has no effect, except that a
// synchronisation has waited. Work on a stream fails asynchronously: the first failure makes the
// stream skip what is still queued, and the next synchronisation with the stream returns it, once;
// the stream is usable again after that. Failures travel with events: who waits for an event behind
// work that failed or was skipped gets the failure, a stream by failing itself. So nobody reads what
// was not computed; all other memory, programs and streams are as they were.
//
// Versions. A version fixes every type, the order and meaning of the table's functions, and the
// numbers of the status codes; within it only comments change. What adds to them or changes them
// raises NPU_DRIVER_VERSION. The runtime loads a driver of its own version only, whose table has all
// functions.
//
// Threads. Any function may be called from any thread at any time, except that an object must
// not be destroyed while another call uses it. Arrays and strings passed in are borrowed for the
// duration of the call unless stated otherwise; out parameters are written on success only.
//
// Ordering. Work on one stream runs in the order of the calls. Work on different streams is
// unordered unless an event orders it. A device runs one launch at a time.
#ifndef OPENNPU_NPU_H_
#define OPENNPU_NPU_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NPU_DRIVER_VERSION 3

typedef enum npu_status {
  NPU_OK = 0,
  NPU_NOT_READY = 1,  // stream_query, event_query: work is left, the event has not happened yet
  NPU_ERROR_INVALID_ARGUMENT = 2,
  NPU_ERROR_UNSUPPORTED = 3,      // this driver or build cannot do it
  NPU_ERROR_OUT_OF_MEMORY = 4,    // of the chip or the host; the message says which
  NPU_ERROR_INVALID_PROGRAM = 5,  // a program image that is malformed or forbidden
  NPU_ERROR_WRONG_CHIP = 6,       // a program compiled for another chip
  NPU_ERROR_TRAP = 7,             // the program did what the instruction set forbids
  NPU_ERROR_TIMEOUT = 8,          // a launch ran past the limit of instructions or of time
  NPU_ERROR_RACE = 9,             // the race checker found unordered conflicting accesses
  NPU_ERROR_INTERNAL = 10,
  NPU_ERROR_DEVICE_LOST = 11,  // the device does no more work: close it; all its calls return this
} npu_status;

typedef struct npu_device_s* npu_device;
typedef struct npu_program_s* npu_program;
typedef struct npu_stream_s* npu_stream;
typedef struct npu_event_s* npu_event;

// A byte of the chip's HBM. 0 is never a valid address.
typedef uint64_t npu_address;

// The chip that a program is compiled for and a device is opened as. Sizes are in bytes.
typedef struct npu_chip_desc {
  char name[64];         // zero-terminated
  uint64_t fingerprint;  // of the chip file; a program carries the one it was compiled for
  uint32_t cores;
  uint32_t align_bytes;  // every HBM buffer starts at a multiple of this
  uint64_t clock_hz;
  uint64_t spm_bytes;    // scratchpad of one core
  uint64_t acc_bytes;    // accumulator of one core
  uint64_t hbm_bytes;    // memory of the chip
  uint32_t mx_k, mx_n;   // stationary tile of the matrix unit
  uint32_t strip, pair;  // packed layout: columns a strip, bf16 values of K side by side
  uint32_t share_cores;  // the most cores that share one load; 1: each loads for itself
} npu_chip_desc;

// How to open a device. Zero everywhere is a good default. A field that a driver has no use
// for must be 0, else device_open returns NPU_ERROR_UNSUPPORTED.
typedef struct npu_device_options {
  const char* engine;         // virtual chip: "native" (NULL means this) or "reference"
  uint64_t hbm_bytes;         // use this much HBM instead of the chip's; 0: the chip's
  uint64_t max_instructions;  // watchdog: per core and launch; 0: 2^32
  uint64_t launch_limit_ms;   // watchdog: milliseconds that one launch may run; 0: any. Hardware has a
                              // timer for it, from whose interrupt it stops the cores
  uint32_t threads;           // virtual chip: worker threads; 0: the smaller of cores and host CPUs
  uint32_t race_check;        // virtual chip: not 0 runs every launch under the race checker
  uint32_t hide_memory;       // virtual chip: not 0 makes memory_host_pointer UNSUPPORTED
} npu_device_options;

typedef enum npu_arg_kind { NPU_ARG_SCALAR = 0, NPU_ARG_BUFFER = 1 } npu_arg_kind;

// One launch argument. For a scalar `value` is the 64-bit value and `bytes` is 0; for a buffer
// they are the HBM address and size of what the program may touch, all within one allocation.
typedef struct npu_arg {
  uint64_t kind;  // npu_arg_kind
  uint64_t value;
  uint64_t bytes;
} npu_arg;

// Totals over all launches of a device that have completed, successful or not.
typedef struct npu_counters {
  uint64_t launches;
  uint64_t instructions;  // executed, over all cores
  uint64_t bytes_loaded;  // HBM to scratchpad; what cores share counts for each
  uint64_t bytes_stored;  // scratchpad to HBM
  uint64_t macs;          // multiply-adds of the matrix units
  uint64_t busy_ns;       // time with a launch running
} npu_counters;

typedef struct npu_driver {
  uint32_t version;  // NPU_DRIVER_VERSION
  const char* name;  // e.g. "virtual"; lives as long as the driver

  // The message of the calling thread's last failure, "" when there was none. For a program it
  // names the instruction and the source op. Valid until the thread's next failing call.
  const char* (*last_error)(void);

  // ---- devices

  // Opens a chip. The caller owns *device and closes it with device_close.
  npu_status (*device_open)(const npu_chip_desc* chip, const npu_device_options* options, npu_device* device);

  // Waits for all work, then frees the device and its memory. Streams, events and programs of the
  // device must have been destroyed before. NULL is allowed.
  void (*device_close)(npu_device device);

  // Waits for all work of all streams. Returns the first failure of a stream that has not been
  // returned yet.
  npu_status (*device_synchronize)(npu_device device);

  npu_status (*device_counters)(npu_device device, npu_counters* counters);
  npu_status (*device_reset_counters)(npu_device device);

  // ---- memory

  // Allocates `bytes` > 0 bytes of HBM, aligned to the chip's align_bytes, contents undefined.
  // Effective at once, ordered with nothing. The caller owns it until memory_free.
  npu_status (*memory_alloc)(npu_device device, uint64_t bytes, npu_address* address);

  // Frees an allocation by its first address; at once: no queued work may still use it.
  npu_status (*memory_free)(npu_device device, npu_address address);

  // Bytes of HBM in all, and not allocated. Either pointer may be NULL.
  npu_status (*memory_info)(npu_device device, uint64_t* total, uint64_t* free);

  // The host address of `address`, through which the host may read and write the allocation for as
  // long as it lives. The caller orders such accesses with the streams by synchronising.
  // NPU_ERROR_UNSUPPORTED on a chip whose memory the host does not see: use the copies.
  npu_status (*memory_host_pointer)(npu_device device, npu_address address, void** pointer);

  // ---- streams: queues of work that runs in order

  // Creates a stream; the caller owns it until stream_destroy, which waits for its work and
  // drops a failure that nobody has asked for. NULL is allowed.
  npu_status (*stream_create)(npu_device device, npu_stream* stream);
  void (*stream_destroy)(npu_stream stream);

  // Waits for the stream's work. Returns its first failure since the last synchronisation.
  npu_status (*stream_synchronize)(npu_stream stream);

  // NPU_OK when all work queued on the stream has run, else NPU_NOT_READY. Reports no failure of the work.
  npu_status (*stream_query)(npu_stream stream);

  // Copies between host and HBM, or within HBM, in stream order. The HBM bytes must lie within one
  // allocation, else the call itself fails; those of a copy within HBM must not overlap. Host
  // memory is borrowed until the copy has run: synchronise before reusing or reading it.
  npu_status (*copy_to_device)(npu_stream stream, npu_address to, const void* from, uint64_t bytes);
  npu_status (*copy_to_host)(npu_stream stream, void* to, npu_address from, uint64_t bytes);
  npu_status (*copy_on_device)(npu_stream stream, npu_address to, npu_address from, uint64_t bytes);

  // ---- programs

  // Loads a program image (docs/architecture.md) after checking every field of it. The bytes are
  // copied. The caller owns *program until program_unload. Returns INVALID_PROGRAM with the byte,
  // field or instruction that is wrong, or WRONG_CHIP.
  npu_status (*program_load)(npu_device device, const void* image, uint64_t bytes, npu_program* program);

  // Frees the program; no queued launch may still use it. NULL is allowed.
  void (*program_unload)(npu_program program);

  // Runs the program on all cores, in stream order. `args` are checked at once against what the
  // program declares (INVALID_ARGUMENT), and copied. TRAP, TIMEOUT and RACE come with the
  // synchronisation; buffers that the program writes then hold anything.
  npu_status (*launch)(npu_stream stream, npu_program program, const npu_arg* args, uint32_t count);

  // ---- events: points in the order of a stream

  // Creates an event that has not been recorded; the caller owns it until event_destroy. A recorded
  // event may be destroyed at any time. NULL is allowed.
  npu_status (*event_create)(npu_device device, npu_event* event);
  void (*event_destroy)(npu_event event);

  // Puts the event behind the work queued on the stream so far. Recording again replaces the point
  // for later calls; who already waits, waits for the old one. An event happens even when work
  // before it failed or was skipped.
  npu_status (*event_record)(npu_event event, npu_stream stream);

  // Makes later work of `stream` wait for the event's latest recording; nothing when it has none.
  // Where the recording's stream had failed, `stream` fails too.
  npu_status (*stream_wait_event)(npu_stream stream, npu_event event);

  // NPU_OK when the latest recording has happened (or there is none), else NPU_NOT_READY. Reports no
  // failure of the work.
  npu_status (*event_query)(npu_event event);

  // Waits for the latest recording. Returns the failure that the stream had there, each time; a
  // synchronisation with the stream returns it as well.
  npu_status (*event_synchronize)(npu_event event);

  // Nanoseconds from `start` to `end`. INVALID_ARGUMENT unless both have happened.
  npu_status (*event_elapsed)(npu_event start, npu_event end, int64_t* nanoseconds);
} npu_driver;

// The driver of this library; NULL when it does not implement `version`. The table is static.
const npu_driver* npu_get_driver(uint32_t version);
typedef const npu_driver* (*npu_get_driver_fn)(uint32_t version);

#ifdef __cplusplus
}
#endif

#endif  // OPENNPU_NPU_H_
