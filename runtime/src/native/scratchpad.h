// Which scratchpad bytes an instruction of the load, store and vector queues reads and writes.
#pragma once

#include <initializer_list>

#include "bounds.h"

namespace opennpu::native {

inline Extent scratchpad(const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2) {
  return isa::Space(tile.space) == isa::Space::Spm ? tile_extent(tile, d0, d1, d2) : Extent{};
}

// ---- writes

// `whole` when no byte between the first and the last stays as it was.
struct Written {
  Extent extent;
  bool whole = false;

  // `sizes`: the product is the number of bytes.
  Written(const Extent& extent, std::initializer_list<int64_t> sizes) : extent(extent) {
    if (extent.empty()) return;
    int64_t bytes = 1;  // fits: an operand that is not empty touches at most kMaxTouchedBytes
    for (const int64_t size : sizes) bytes *= size;
    whole = bytes == extent.end - extent.begin;
  }
};

inline Written written(const isa::Tile& tile, int64_t d0, int64_t d1, int64_t d2) {
  return {scratchpad(tile, d0, d1, d2), {d0, d1, d2, dtype_size(tile.dtype)}};
}
inline Written written(const isa::DmaLoad& op) {
  return {strided_extent(op.dst, op.bytes, {{op.n0, op.ds0}, {op.n1, op.ds1}, {op.n2, op.ds2}}),
          {op.n0, op.n1, op.n2, op.bytes}};
}
inline Written written(const isa::DmaGather& op) {
  return {
      strided_extent(op.dst, op.row_bytes, {{op.count, op.dst_index_stride}, {op.rows, op.dst_row_stride}}),
      {op.count, op.rows, op.row_bytes}};
}
template <typename Op>
Written written(const Op& op) {
  return written(op.dst, op.d0, op.d1, op.d2);
}
inline Written written(const isa::VReduce& op) { return written(op.dst, op.d0, op.d1, 1); }
inline Written written(const isa::VTranspose& op) { return written(op.dst, op.d0, op.d2, op.d1); }

template <typename Visit, typename Op>
void visit_writes(const Op& op, Visit visit) {
  visit(written(op));
}
template <typename Visit>
void visit_writes(const isa::VSoftmaxStep& op, Visit visit) {
  visit(written(op.p, 1, op.rows, op.n));
  for (const int64_t vector : {op.m, op.l, op.alpha})
    visit(Written(strided_extent(vector, 4, {{op.rows, 4}}), {op.rows, 4}));
}
template <typename Visit>
void visit_writes(const isa::DmaStore&, Visit) {}
template <typename Visit>
void visit_writes(const isa::DmaScatter&, Visit) {}

// ---- reads

inline Extent stored(const isa::DmaStore& op) {
  return strided_extent(op.src, op.bytes, {{op.n0, op.ss0}, {op.n1, op.ss1}, {op.n2, op.ss2}});
}

inline Extent scattered(const isa::DmaScatter& op) {
  return strided_extent(op.src, op.row_bytes,
                        {{op.count, op.src_index_stride}, {op.rows, op.src_row_stride}});
}

template <typename Visit, typename Op>
void visit_reads(const Op&, Visit) {}  // dma_load, dma_gather, v_fill, v_iota
template <typename Visit>
void visit_reads(const isa::DmaStore& op, Visit visit) {
  visit(stored(op));
}
template <typename Visit>
void visit_reads(const isa::DmaScatter& op, Visit visit) {
  visit(
      strided_extent(op.src, op.row_bytes, {{op.count, op.src_index_stride}, {op.rows, op.src_row_stride}}));
}
template <typename Visit>
void visit_reads(const isa::VUnary& op, Visit visit) {
  visit(scratchpad(op.a, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VReduce& op, Visit visit) {
  visit(scratchpad(op.a, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VTranspose& op, Visit visit) {
  visit(scratchpad(op.a, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VBinary& op, Visit visit) {
  for (const isa::Tile& tile : {op.a, op.b}) visit(scratchpad(tile, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VSelect& op, Visit visit) {
  for (const isa::Tile& tile : {op.cond, op.a, op.b}) visit(scratchpad(tile, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VGather& op, Visit visit) {
  visit(scratchpad(op.a, op.d0, op.d1, op.limit));
  visit(scratchpad(op.index, op.d0, op.d1, op.d2));
}
template <typename Visit>
void visit_reads(const isa::VSoftmaxStep& op, Visit visit) {
  visit(scratchpad(op.s, 1, op.rows, op.n));
  for (const int64_t vector : {op.m, op.l}) visit(strided_extent(vector, 4, {{op.rows, 4}}));
}

}  // namespace opennpu::native
