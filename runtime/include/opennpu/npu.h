// The OpenNPU driver interface: what a chip vendor implements and the runtime calls.
#ifndef OPENNPU_NPU_H_
#define OPENNPU_NPU_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

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
} npu_chip_desc;

#ifdef __cplusplus
}
#endif

#endif  // OPENNPU_NPU_H_
