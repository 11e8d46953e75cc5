// HBM as a fluid that the transfers of all cores share: at any time each gets the same rate, an equal part
// of the bandwidth but no more than a DMA queue can move. (Processor sharing, Kleinrock 1967.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace opennpu::timing {

class SharedHbm {
 public:
  // Bytes a cycle of the whole memory and of one transfer.
  SharedHbm(double bandwidth, double transfer_rate) : bandwidth_(bandwidth), transfer_rate_(transfer_rate) {}

  // A transfer of `work` > 0 bytes from time `start` on, no earlier than the last end that was returned.
  void post(int64_t start, int64_t work, uint32_t id);

  bool idle() const { return waiting_.empty() && active_.empty(); }

  struct End {
    double time;
    uint32_t id;
  };

  // The next transfer to end; ends come in the order of time, equal ones in that of their ids.
  End next();

  // Cycles that a transfer takes when it has the memory for itself.
  double alone(int64_t work) const { return static_cast<double>(work) / rate(1); }

 private:
  struct Entry {
    double key;
    uint32_t id;
    double work;
    bool operator>(const Entry& other) const { return key != other.key ? key > other.key : id > other.id; }
  };
  using Heap = std::priority_queue<Entry, std::vector<Entry>, std::greater<>>;

  double rate(size_t transfers) const;

  const double bandwidth_, transfer_rate_;
  double now_ = 0;
  double served_ = 0;  // bytes that a transfer would have got that was active all the time
  Heap waiting_;       // by start
  Heap active_;        // by what `served_` will be at the end
};

}  // namespace opennpu::timing
