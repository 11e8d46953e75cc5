// What the machine can do at most, measured: prints one JSON object.
//   read_gb_per_s   threads sum up 256 MiB each, in pieces that no cache holds
//   f32_gflop_per_s, bf16_gflop_per_s   threads run independent multiply-adds in registers;
//   bf16 is 0 where the CPU has no instruction for it
// Each figure is the best of `rounds`, as anything else on the machine only slows it.
// Usage: probe THREADS

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif
using Vector = float __attribute__((vector_size(kVectorBytes)));
constexpr int kLanes = kVectorBytes / sizeof(float);
constexpr int kChains = 12;  // more than latency times throughput of a multiply-add
constexpr long kSteps = 4'000'000;
constexpr std::size_t kVectors = (std::size_t{256} << 20) / sizeof(Vector);
constexpr int kRounds = 3;

void keep(const Vector& v) { asm volatile("" : : "m"(v) : "memory"); }

// Seconds of the slowest thread, the best of all rounds.
template <typename Work>
double best_seconds(int threads, const Work& work) {
  double best = 1e30;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back(work, i);
    for (std::thread& worker : workers) worker.join();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

// The chains start from different values: equal ones the compiler would compute once.
void multiply_add_f32(int thread) {
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Vector{} + static_cast<float>(i);
  Vector a = Vector{} + 1e-9f * static_cast<float>(thread);
  for (long step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (Vector& sum : sums) sum = sum * a + a;
  }
  for (const Vector& sum : sums) keep(sum);
}

#ifdef __AVX512BF16__
void multiply_add_bf16(int) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-9f), _mm512_set1_ps(1e-9f));
  for (long step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  }
  for (const __m512& sum : sums) keep(sum);
}
#endif

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1) {
    std::fprintf(stderr, "usage: probe THREADS\n");
    return 1;
  }
  std::vector<std::vector<Vector>> data(static_cast<std::size_t>(threads));
  for (auto& part : data) part.assign(kVectors, Vector{} + 1.0f);
  const double read = best_seconds(threads, [&](int thread) {
    const Vector* v = data[static_cast<std::size_t>(thread)].data();
    Vector sums[8] = {};
    for (std::size_t i = 0; i < kVectors; i += 8) {
#pragma GCC unroll 8
      for (std::size_t j = 0; j < 8; ++j) sums[j] += v[i + j];
    }
    for (const Vector& sum : sums) keep(sum);
  });
  const double bytes = static_cast<double>(kVectors * sizeof(Vector)) * threads;
  const double operations = 2.0 * kLanes * kChains * kSteps * threads;
  double bf16 = 0;
#ifdef __AVX512BF16__
  bf16 = 2 * operations / best_seconds(threads, multiply_add_bf16) / 1e9;
#endif
  std::printf("{\"read_gb_per_s\": %.2f, \"f32_gflop_per_s\": %.1f, \"bf16_gflop_per_s\": %.1f}\n",
              bytes / read / 1e9, operations / best_seconds(threads, multiply_add_f32) / 1e9, bf16);
  return 0;
}
