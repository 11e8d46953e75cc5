// The race checker: happens-before by vector clocks (Lamport 1978; Mattern 1989), shadow memory per core.
//
// Each core has five clocks, one for each queue and one for the sequencer. What orders two accesses of a
// core:
//   - the order of one queue;
//   - the sequencer before whatever it issues later (its own s_ld), never the reverse;
//   - the k-th wait on a flag after the k-th set, and so after all that stood earlier on the setting queue;
//   - a barrier, which orders everything on all cores; so what lies before the last one can be forgotten.
// Accesses of different cores to HBM are compared when the barrier is complete, one core after the other, so
// that the findings do not depend on how the host ran its threads.
#include <deque>
#include <optional>
#include <vector>

#include "../reference/footprint.h"
#include "findings.h"
#include "shadow.h"

namespace opennpu {

namespace race {

namespace {

using isa::Unit;

constexpr size_t kQueues = 5;
using Clock = std::array<uint64_t, kQueues>;  // how much of each queue is known to be over

void join(Clock& clock, const Clock& other) {
  for (size_t q = 0; q < kQueues; ++q) clock[q] = std::max(clock[q], other[q]);
}

// The sets of a flag that no wait has taken yet, and who used the flag since the last barrier.
struct Flag {
  std::deque<Clock> sets;
  std::optional<Actor> setter, waiter;
};

// Calls `run(begin, end)` for every contiguous run of bytes of an access; repetitions are left out.
template <class Run>
void for_each_run(Access access, Run&& run) {
  auto& [outer, middle, inner] = access.walks;
  for (Walk& walk : access.walks)
    if (walk.stride == 0) walk.count = 1;
  for (Walk* walk : {&inner, &middle, &outer}) {
    if (walk->count == 1) continue;
    if (walk->stride != access.bytes) break;
    access.bytes *= walk->count;
    walk->count = 1;
  }
  for (int64_t i = 0; i < outer.count; ++i)
    for (int64_t j = 0; j < middle.count; ++j)
      for (int64_t k = 0; k < inner.count; ++k) {
        const int64_t begin = access.address + i * outer.stride + j * middle.stride + k * inner.stride;
        run(begin, begin + access.bytes);
      }
}

// One core: only the thread that runs it calls in between two barriers.
class CoreChecker {
 public:
  explicit CoreChecker(unsigned number) : number_(number) {}

  template <class Op>
  void instruction(const Core& core, const Site& site, const Op& op) {
    Actor actor = tick(site, Op::kUnit);
    try {
      visit_accesses(core, op, stationary_, [&](const Access& access) {
        check_access(core, access);
        actor.write = access.write;
        record(access, actor);
      });
    } catch (const Trap&) {
      // The engine is about to throw the same and ends the launch.
    }
    if constexpr (std::is_same_v<Op, isa::MxLoad>) stationary_ = {op.k, op.n, op.dtype};
  }

  void set_flag(const Site& site, const isa::SetFlag& op) {
    Flag* flag = find(op.flag);
    if (flag == nullptr) return;
    const Actor actor = tick(site, static_cast<Unit>(op.queue));
    use(flag->setter, actor, op.flag, true);
    flag->sets.push_back(clock(actor.queue));
  }

  void wait_flag(const Site& site, const isa::WaitFlag& op) {
    Flag* flag = find(op.flag);
    if (flag == nullptr || flag->sets.empty()) return;  // the sequencer reports the deadlock
    const Actor actor = tick(site, static_cast<Unit>(op.queue));
    use(flag->waiter, actor, op.flag, false);
    join(clock(actor.queue), flag->sets.front());
    flag->sets.pop_front();
  }

  // HBM accesses of this core and a later one.
  void compare_hbm(const CoreChecker& other, Findings& findings) const {
    hbm().compare(other.hbm(), [&](const Actor& mine, const Actor& theirs, int64_t begin, int64_t end) {
      findings.add({mine, theirs, number_, other.number_, Memory::Hbm, begin, end});
    });
  }

  void forget() {
    for (Shadow& shadow : shadows_) shadow.clear();
    for (Flag& flag : flags_) flag.setter = flag.waiter = std::nullopt;
  }

  const Findings& findings() const { return findings_; }

 private:
  Clock& clock(Unit queue) { return clocks_[static_cast<size_t>(queue)]; }
  const Shadow& hbm() const { return shadows_[static_cast<size_t>(Memory::Hbm)]; }

  Flag* find(int64_t flag) { return flag >= 0 && flag < int64_t{isa::kFlags} ? &flags_[flag] : nullptr; }

  // The next instruction of a queue: after the queue's earlier ones and the sequencer's.
  Actor tick(const Site& site, Unit queue) {
    join(clock(queue), clock(Unit::Seq));
    return {site, queue, false, ++clock(queue)[static_cast<size_t>(queue)]};
  }

  void record(const Access& access, const Actor& actor) {
    if (access.empty()) return;
    const Clock& known = clock(actor.queue);
    for_each_run(access, [&](int64_t begin, int64_t end) {
      const auto conflict = [&](const Actor& earlier, int64_t first, int64_t last) {
        if (known[static_cast<size_t>(earlier.queue)] < earlier.time)
          findings_.add({earlier, actor, number_, number_, access.memory, first, last});
      };
      shadows_[static_cast<size_t>(access.memory)].record(begin, end, actor, conflict);
    });
  }

  // A flag matches sets with waits by number, which only means something with one queue on either side.
  void use(std::optional<Actor>& user, const Actor& actor, int64_t flag, bool set) {
    if (user && user->queue != actor.queue) findings_.add({*user, actor, number_, flag, set});
    user = actor;
  }

  unsigned number_;
  std::array<Clock, kQueues> clocks_{};
  std::array<Flag, isa::kFlags> flags_;
  std::array<Shadow, 3> shadows_;  // by Memory
  Stationary stationary_;
  Findings findings_;
};

class RaceChecker final : public Observer {
 public:
  explicit RaceChecker(DescribeSite describe) : describe_(std::move(describe)) {}

  void begin(unsigned cores) override {
    findings_ = {};
    cores_.clear();
    for (unsigned i = 0; i < cores; ++i) cores_.emplace_back(i);
  }

#define X(NAME)                                                                   \
  void before(const Core& core, const Site& site, const isa::NAME& op) override { \
    cores_[core.number].instruction(core, site, op);                              \
  }
  ONPU_ENGINE_INSTRUCTIONS(X)
  X(SLd)
#undef X

  void before(const Core& core, const Site& site, const isa::SetFlag& op) override {
    cores_[core.number].set_flag(site, op);
  }
  void before(const Core& core, const Site& site, const isa::WaitFlag& op) override {
    cores_[core.number].wait_flag(site, op);
  }
  void before(const Core&, const Site&, const isa::Barrier&) override {}
  void before(const Core&, const Site&, const isa::Halt&) override {}

  void barrier_complete() override {
    for (size_t i = 0; i < cores_.size(); ++i)
      for (size_t j = i + 1; j < cores_.size(); ++j) cores_[i].compare_hbm(cores_[j], findings_);
    for (CoreChecker& core : cores_) core.forget();
  }

  std::string finish() override {
    for (const CoreChecker& core : cores_) findings_.merge(core.findings());
    return findings_.text(describe_);
  }

 private:
  DescribeSite describe_;
  std::deque<CoreChecker> cores_;
  Findings findings_;  // between cores
};

}  // namespace

}  // namespace race

std::unique_ptr<Observer> make_race_checker(const npu_chip_desc&, DescribeSite describe) {
  return std::make_unique<race::RaceChecker>(std::move(describe));
}

}  // namespace opennpu
