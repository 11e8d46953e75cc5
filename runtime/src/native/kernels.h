// The host kernels of the native engine: one table a CPU path, the same source built with
// different flags. Every path computes each element in an order that does not depend on the
// shape of the call, so results are equal bit for bit whatever else is in the batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace opennpu::native {

inline constexpr int kStrip = 16;  // columns of a strip of the packed layout that the kernels know
inline constexpr int kPair = 2;    // bf16 values of K side by side in it

// rows × n += rows × k · k × n with the stationary operand packed in strips.
struct Multiply {
  const std::byte* weights;  // strips [k/pair][16][pair], padded with zeros to a whole pair
  int64_t strip_stride;      // bytes from one strip to the next
  int64_t k, n;
  const std::byte* x;  // rows `x_stride` bytes apart
  int64_t x_stride;
  int64_t rows;
  std::byte* acc;  // f32, rows `acc_stride` bytes apart
  int64_t acc_stride;
  bool accumulate;
  float* scratch;  // at least kPanelRows · k floats
};

inline constexpr int kPanelRows =
    48;  // rows of x held as f32 at a time: with k = 128 half a second-level cache

// Columns by 32-bit words of K (an f32, a pair of bf16) to a strip [word][16]. Returns how many words are
// done: the last ones may be left.
using Turn = int64_t (*)(std::byte* strip, const std::byte* const* columns, int64_t words);

// One row of an online softmax step; see v_softmax_step in the instruction table.
struct SoftmaxRow {
  float* x;       // n scores on entry, n probabilities on return; room for a multiple of 16
  int64_t begin;  // columns [begin, end) are seen, the others become 0
  int64_t end, n;
  float scale;
  float* m;
  float* l;
  float* alpha;
};

// Element-wise kernels work in place on runs of f32; dtypes are converted at the edges.
struct Kernels {
  using Unary = void (*)(float* x, int64_t n);
  using Binary = void (*)(float* a, const float* b, int64_t n);
  using Sum = float (*)(const float* x, int64_t n);

  const char* path;
  void (*multiply_bf16)(const Multiply&);
  void (*multiply_f32)(const Multiply&);
  Turn turn;
  void (*widen)(const uint16_t* bf16, float* out, int64_t n);
  void (*narrow)(const float* x, uint16_t* bf16, int64_t n);  // to nearest even, NaN kept
  Unary (*unary)(std::string_view op);                        // nullptr where the path has none
  Binary (*binary)(std::string_view op);
  Sum sum, sumsq, max;  // in v_reduce's order; max: NaN if any is NaN, -inf of none
  void (*softmax_row)(const SoftmaxRow&);
};

extern const Kernels kPortable;
#ifdef ONPU_HAVE_X86
extern const Kernels kAvx2;
#endif

// The best table that this CPU runs, or the one that OPENNPU_CPU_PATH names (portable, avx2).
// Throws std::invalid_argument for a name that is unknown or that the CPU cannot run.
const Kernels& select_kernels();

}  // namespace opennpu::native
