#include "cost.h"

#include <ranges>

namespace opennpu::timing {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The runs of a strided walk, outermost step first; steps that follow on each other make longer runs.
Runs merge(std::array<Walk, 3> walks, int64_t bytes) {
  if (strided_extent(0, bytes, {{walks[0].count, 0}, {walks[1].count, 0}, {walks[2].count, 0}}).empty()) {
    return {0, 0};
  }
  Runs runs{1, bytes};
  for (const Walk& walk : walks | std::views::reverse) {
    if (runs.count == 1 && (walk.count == 1 || walk.stride == runs.bytes)) {
      runs.bytes *= walk.count;
    } else {
      runs.count *= walk.count;
    }
  }
  return runs;
}

}  // namespace

Runs CostModel::hbm_runs(const isa::DmaLoad& op) {
  return merge({{{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}}}, op.bytes);
}

Runs CostModel::hbm_runs(const isa::DmaStore& op) {
  return merge({{{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}}}, op.bytes);
}

// Whole bursts and the opening of a row for each run.
Cost CostModel::transfer(Runs runs) const {
  if (runs.count == 0) return {};
  Cost cost;
  cost.occupancy = runs.count * p_.dma_run_cycles;
  cost.latency = p_.dma_latency_cycles;
  cost.hbm_bytes = runs.count * runs.bytes;
  const int64_t bursts = ceil_div(runs.bytes, p_.hbm_burst_bytes);
  cost.hbm_work = runs.count * (bursts * p_.hbm_burst_bytes + p_.hbm_run_overhead_bytes);
  return cost;
}

// The list of indices is read first: twice the latency.
Cost CostModel::indirect(int64_t count, int64_t rows, int64_t row_bytes, int64_t row_stride) const {
  constexpr int64_t kApart = -1;  // no run of one index goes on in that of the next
  Cost cost = transfer(merge({{{1, 0}, {count, kApart}, {rows, row_stride}}}, row_bytes));
  if (cost.hbm_bytes == 0) return {};
  cost.occupancy += count * p_.dma_index_cycles;
  cost.latency += p_.dma_latency_cycles;
  return cost;
}

Cost CostModel::stationary(int64_t k, int64_t n, int64_t dtype) {
  if (k < 0 || k > int64_t{chip_.mx_k} || n < 0 || n > int64_t{chip_.mx_n}) {
    throw Trap{"the stationary tile is larger than the matrix unit"};
  }
  const bool f32 = static_cast<isa::Dtype>(dtype) == isa::Dtype::F32;
  k_ = k;
  n_ = n;
  row_cycles_ = f32 ? p_.matrix_f32_row_cycles : p_.matrix_bf16_row_cycles;
  Cost cost;
  cost.occupancy = k * p_.matrix_load_row_cycles;
  return cost;
}

Cost CostModel::product(int64_t rows) const {
  rows = elements(rows, 1, 1);
  Cost cost;
  if (rows == 0 || k_ == 0 || n_ == 0) return cost;
  cost.occupancy = rows * row_cycles_;
  cost.latency = p_.matrix_latency_cycles;
  cost.macs = rows * k_ * n_;
  cost.row_macs = cost.macs * row_cycles_;
  return cost;
}

Cost CostModel::vector(int64_t elements, int64_t passes, bool special) const {
  Cost cost;
  if (elements == 0) return cost;
  const int64_t last = ceil_div(elements, special ? p_.vector_special_lanes : p_.vector_lanes);
  cost.occupancy = p_.vector_startup_cycles + (passes - 1) * ceil_div(elements, p_.vector_lanes) + last;
  return cost;
}

int64_t CostModel::elements(int64_t d0, int64_t d1, int64_t d2) {
  return strided_extent(0, 1, {{d0, 0}, {d1, 0}, {d2, 0}}).empty() ? 0 : d0 * d1 * d2;
}

}  // namespace opennpu::timing
