// v_softmax_step: one step of the online softmax.
#include <limits>

#include "element.h"
#include "instructions.h"
#include "math.h"
#include "reduce.h"

namespace opennpu::reference {

namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

float as_float(int64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }

float exp(float x) { return static_cast<float>(math::exp(x)); }

float larger(float a, float b) { return a != a ? a : a > b ? a : b; }

/// Whether row r sees column j.
bool sees(const isa::VSoftmaxStep& op, int64_t r, int64_t j) {
  const __int128 q = __int128(op.pos) + r / op.group, t = __int128(op.key) + j;
  return (op.causal == 0 || t <= q) && (op.window == 0 || t > q - op.window);
}

/// The scaled, capped scores of row r; x[j] where column j is not seen is not used.
void scores(const Core& core, const isa::VSoftmaxStep& op, int64_t r, std::vector<float>& x) {
  const float scale = as_float(op.scale), cap = as_float(op.cap);
  for (int64_t j = 0; j < op.n; ++j) {
    x[j] = read<float>(element(core, op.s, 0, r, j)) * scale;
    if (cap != 0) x[j] = cap * static_cast<float>(math::tanh(x[j] / cap));
  }
}

}  // namespace

void run(Core& core, const isa::VSoftmaxStep& op) {
  constexpr auto kF32 = static_cast<int64_t>(isa::Dtype::F32);
  std::vector<float> x(op.rows > 0 && op.n > 0 ? op.n : 0);
  for (int64_t r = 0; r < op.rows; ++r) {
    std::byte *m_at = core.memory.spm + op.m + r * 4, *l_at = core.memory.spm + op.l + r * 4;
    scores(core, op, r, x);
    const float m = read<float>(m_at), l = read<float>(l_at);
    float greatest = m;
    for (int64_t j = 0; j < op.n; ++j)
      if (sees(op, r, j)) greatest = larger(greatest, x[j]);
    const bool none = greatest == kNegInf;
    const float alpha = none ? 1 : exp(m - greatest);
    for (int64_t j = 0; j < op.n; ++j) {
      x[j] = !none && sees(op, r, j) ? exp(x[j] - greatest) : 0;
      store(op.p.dtype, element(core, op.p, 0, r, j), x[j]);
    }
    const float sum = lane_sum(op.n, [&](int64_t j, float partial) { return partial + x[j]; });
    store(kF32, m_at, greatest);
    store(kF32, l_at, l * alpha + sum);
    store(kF32, core.memory.spm + op.alpha + r * 4, alpha);
  }
}

}  // namespace opennpu::reference
