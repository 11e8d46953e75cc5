// HBM as a fluid that the transfers of all cores share: at any time each gets the same rate, an equal part
// of the bandwidth but no more than a DMA queue can move. (Processor sharing, Kleinrock 1967.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <vector>

namespace opennpu::timing {

class SharedHbm {
 public:
  // Bytes a cycle of the whole memory and of one transfer.
  SharedHbm(double bandwidth, double transfer_rate) : bandwidth_(bandwidth), transfer_rate_(transfer_rate) {}

  // A transfer of `work` > 0 bytes from time `start` on, which lies between the last time that this object
  // was told or returned and next_end().
  void post(int64_t start, int64_t work, uint32_t id);

  bool idle() const { return active_.empty(); }

  // When the next transfer ends if no other is posted before; infinite when there is none.
  double next_end() const { return next_end_; }

  // Ends that transfer and returns its id; of equal ones the least id comes first.
  uint32_t end_next();

  // Cycles that a transfer takes when it has the memory for itself.
  double alone(int64_t work) const { return static_cast<double>(work) / rate(1); }

 private:
  struct Entry {
    double end;  // what `served_` will be then
    uint32_t id;
    bool operator>(const Entry& other) const { return end != other.end ? end > other.end : id > other.id; }
  };
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  double rate(size_t transfers) const;
  void predict();

  const double bandwidth_, transfer_rate_;
  double now_ = 0;
  double served_ = 0;  // bytes that a transfer would have got that was active all the time
  double next_end_ = kNever;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> active_;
};

}  // namespace opennpu::timing
