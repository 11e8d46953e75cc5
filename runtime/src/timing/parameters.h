// What things cost on a chip: the table `timing` of its file (docs/timing.md).
#pragma once

#include <cstdint>

namespace opennpu::timing {

// Every parameter by the name that it has in the chip file.
#define ONPU_TIMING_PARAMETERS(X) \
  X(issue_cycles)                 \
  X(queue_depth)                  \
  X(scalar_load_cycles)           \
  X(flag_cycles)                  \
  X(barrier_cycles)               \
  X(hbm_gbps)                     \
  X(hbm_burst_bytes)              \
  X(hbm_run_overhead_bytes)       \
  X(dma_bytes_per_cycle)          \
  X(dma_latency_cycles)           \
  X(dma_run_cycles)               \
  X(dma_index_cycles)             \
  X(matrix_bf16_row_cycles)       \
  X(matrix_f32_row_cycles)        \
  X(matrix_load_row_cycles)       \
  X(matrix_latency_cycles)        \
  X(vector_lanes)                 \
  X(vector_special_lanes)         \
  X(vector_startup_cycles)        \
  X(dma_share_cycles)             \
  X(spm_banks)                    \
  X(spm_bank_bytes_per_cycle)

struct Parameters {
#define X(NAME) int64_t NAME;
  ONPU_TIMING_PARAMETERS(X)
#undef X
};

}  // namespace opennpu::timing
