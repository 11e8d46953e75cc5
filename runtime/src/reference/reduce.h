// The order in which the vector unit adds.
#pragma once

#include <array>
#include <cstdint>

namespace opennpu::reference {

/// Σ term(i, partial) for i < n in v_reduce's order: lane j of 16 folds the elements i ≡ j (mod 16) in
/// ascending order from 0, then lanes are added in halves. `term(i, partial)` returns the partial sum with
/// element i.
template <class Term>
float lane_sum(int64_t n, Term&& term) {
  constexpr int kLanes = 16;
  std::array<float, kLanes> lanes{};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] = term(i, lanes[i % kLanes]);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  return lanes[0];
}

}  // namespace opennpu::reference
