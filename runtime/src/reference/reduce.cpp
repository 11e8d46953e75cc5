// v_reduce: one result a row.
#include "reduce.h"

#include <limits>

#include "element.h"
#include "instructions.h"

namespace opennpu::reference {

namespace {

using isa::Reduce;

/// The elements of one row of a tile, as T.
template <class T>
struct Row {
  const std::byte* at;
  int64_t dtype, stride, count;

  T operator[](int64_t i) const {
    if constexpr (std::is_same_v<T, float>)
      return load_float(dtype, at + i * stride);
    else
      return load_integer(dtype, at + i * stride);
  }
};

/// Index of the first greatest (`greatest`) or least element, of the first NaN if there is one; 0 of none.
template <class T>
int64_t first_extreme(const Row<T>& row, bool greatest) {
  int64_t best = 0;
  for (int64_t i = 0; i < row.count; ++i) {
    const T x = row[i], y = row[best];
    if (x != x) return i;
    if (greatest ? x > y : x < y) best = i;
  }
  return best;
}

template <class T>
T extreme(const Row<T>& row, bool greatest) {
  if (row.count > 0) return row[first_extreme(row, greatest)];
  using Limits = std::numeric_limits<T>;
  if constexpr (Limits::has_infinity)
    return greatest ? -Limits::infinity() : Limits::infinity();
  else
    return greatest ? Limits::min() : Limits::max();
}

float sum(const Row<float>& row, bool squares) {
  return lane_sum(row.count, [&](int64_t i, float partial) {
    const float x = row[i];
    return squares ? std::fma(x, x, partial) : partial + x;
  });
}

int64_t sum(const Row<int64_t>& row, bool squares) {
  uint64_t total = 0;  // wraps
  for (int64_t i = 0; i < row.count; ++i) total += static_cast<uint64_t>(row[i]) * (squares ? row[i] : 1);
  return static_cast<int64_t>(total);
}

template <class T>
void reduce(Reduce op, const Row<T>& row, int64_t dtype, std::byte* dst) {
  switch (op) {
    case Reduce::Sum:
      return store(dtype, dst, sum(row, false));
    case Reduce::Sumsq:
      return store(dtype, dst, sum(row, true));
    case Reduce::Max:
      return store(dtype, dst, extreme(row, true));
    case Reduce::Min:
      return store(dtype, dst, extreme(row, false));
    case Reduce::Argmax:
      return store(dtype, dst, first_extreme(row, true));
  }
}

}  // namespace

void run(Core& core, const isa::VReduce& op) {
  const auto function = static_cast<Reduce>(op.op);
  for_each_element(op.d0, op.d1, 1, [&](int64_t i0, int64_t i1, int64_t) {
    const std::byte* a = element(core, op.a, i0, i1, 0);
    std::byte* dst = element(core, op.dst, i0, i1, 0);
    if (is_integer(op.a.dtype))
      reduce(function, Row<int64_t>{a, op.a.dtype, op.a.s2, op.d2}, op.dst.dtype, dst);
    else
      reduce(function, Row<float>{a, op.a.dtype, op.a.s2, op.d2}, op.dst.dtype, dst);
  });
}

}  // namespace opennpu::reference
