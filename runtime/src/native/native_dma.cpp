// dma_gather and dma_scatter: rows by index. Whatever is not regular goes to the reference engine, which
// says what is wrong with it.
#include <algorithm>
#include <cstring>

#include "native_engine.h"
#include "scratchpad.h"

namespace opennpu::native {
namespace {

constexpr int64_t kPrefetchedRows = 32;  // of a gather: the matrix unit asks for the others

int64_t index_at(const std::byte* indices, int64_t dtype, int64_t i) {
  if (dtype == int64_t(isa::Dtype::I64)) {
    int64_t value;
    std::memcpy(&value, indices + i * 8, 8);
    return value;
  }
  int32_t value;
  std::memcpy(&value, indices + i * 4, 4);
  return value;
}

// Bounds within which no product of the walk below overflows.
template <typename Op>
bool plausible(const Op& op, int64_t table) {
  const auto small = [](int64_t x) { return x > -(int64_t{1} << 46) && x < int64_t{1} << 46; };
  return op.group >= 1 && op.count <= 1 << 26 && op.limit <= 1 << 30 && small(table) &&
         small(op.group_stride) && small(op.index_stride) && small(op.row_stride) && small(op.index);
}

// `copy(host address of the first row in HBM, i)` for every index; false where one is not regular.
template <typename Op, typename Copy>
bool for_each_index(const Core& core, const Op& op, int64_t table, bool write, Copy copy) {
  if (!plausible(op, table)) return false;
  const std::byte* indices = core.hbm.find(op.index, op.count * dtype_size(op.index_dtype), false);
  if (!indices) return false;
  const Extent rows = strided_extent(int64_t{1} << 62, op.row_bytes, {{op.rows, op.row_stride}});
  const int64_t first = (int64_t{1} << 62) - rows.begin, bytes = rows.end - rows.begin;
  for (int64_t i = 0; i < op.count; ++i) {
    const int64_t x = index_at(indices, op.index_dtype, i);
    if (x < 0 || x >= op.limit) return false;
    int64_t offset;
    if (__builtin_mul_overflow(x / op.group, op.group_stride, &offset)) return false;
    const __int128 address = __int128(offset) + table + __int128(x % op.group) * op.index_stride - first;
    if (address < 0 || address > INT64_MAX) return false;
    std::byte* hull = core.hbm.find(static_cast<uint64_t>(address), bytes, write);
    if (!hull) return false;
    copy(hull + first, i);
  }
  return true;
}

}  // namespace

bool NativeEngine::gather(Core& core, const isa::DmaGather& op) const {
  const Extent to = written(op).extent;
  std::byte* spm = check_memory(core, isa::Space::Spm, to);
  if (to.empty()) return false;
  const int64_t rows = op.count * op.rows;
  const bool dense = op.dst_row_stride == op.row_bytes && op.dst_index_stride == op.rows * op.row_bytes;
  if (dense && rows <= int64_t{Pending::kMostRows}) {
    Pending& pending = static_cast<State&>(*core.state).pending;
    const std::byte** row = pending.add_rows(to, op.row_bytes, spm).data();
    const bool regular = for_each_index(core, op, op.src, false, [&](const std::byte* from, int64_t) {
      for (int64_t r = 0; r < op.rows; ++r) *row++ = from + r * op.row_stride;
    });
    if (!regular) {
      pending.forget_last();
      return false;
    }
    const std::byte* const* first = row - rows;
    for (int64_t r = 0; r < std::min(rows, kPrefetchedRows); ++r)
      for (int64_t i = 0; i < op.row_bytes; i += 64) __builtin_prefetch(first[r] + i);
    return true;
  }
  return for_each_index(core, op, op.src, false, [&](const std::byte* from, int64_t i) {
    std::byte* row = spm + op.dst + i * op.dst_index_stride;
    for (int64_t r = 0; r < op.rows; ++r)
      std::memcpy(row + r * op.dst_row_stride, from + r * op.row_stride, op.row_bytes);
  });
}

bool NativeEngine::scatter(Core& core, const isa::DmaScatter& op) const {
  const Extent from = scattered(op);
  const std::byte* spm = check_memory(core, isa::Space::Spm, from);
  if (from.empty()) return false;
  return for_each_index(core, op, op.dst, true, [&](std::byte* to, int64_t i) {
    const std::byte* row = spm + op.src + i * op.src_index_stride;
    for (int64_t r = 0; r < op.rows; ++r)
      std::memcpy(to + r * op.row_stride, row + r * op.src_row_stride, op.row_bytes);
  });
}

}  // namespace opennpu::native
