// Shadow memory: for every byte of a memory, which instructions of one core touched it since the last
// barrier.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "../engine.h"

namespace opennpu::race {

// One execution of an instruction on one queue, `time` being its rank on that queue; reading or writing.
struct Actor {
  Site site;
  isa::Unit queue;
  bool write;
  uint64_t time;
};

class Shadow {
 public:
  // Adds the bytes [begin, end). Calls conflict(earlier, first, last + 1) for each span of bytes that another
  // actor touched, if either of the two writes, whether ordered or not.
  //
  // An instruction leaves only its latest touch of a byte: its executions stand on one queue, so whatever is
  // ordered after the latest is ordered after all. That bounds an entry list by the length of the text.
  template <class Conflict>
  void record(int64_t begin, int64_t end, const Actor& actor, Conflict&& conflict) {
    for (int64_t at = begin; at < end; at = (at / kLineBytes + 1) * kLineBytes) {
      const int64_t line = at / kLineBytes;
      const uint64_t mask = line_mask(at, std::min(end, (line + 1) * kLineBytes));
      Page& page = find_or_add(line / kPageLines);
      page.written |= actor.write;
      std::vector<Entry>& entries = page.lines[line % kPageLines];
      for (const Entry& entry : entries) report(line, entry, mask, actor, conflict);
      insert(entries, {mask, actor});
    }
  }

  // Calls conflict(mine, theirs, first, last + 1) for each span of bytes that both cores touched and one
  // wrote, in ascending order of address.
  template <class Conflict>
  void compare(const Shadow& other, Conflict&& conflict) const {
    std::vector<int64_t> shared;
    for (const auto& [number, page] : pages_) {
      const auto theirs = other.pages_.find(number);
      if (theirs != other.pages_.end() && (page->written || theirs->second->written))
        shared.push_back(number);
    }
    std::sort(shared.begin(), shared.end());
    for (const int64_t number : shared) {
      const Page &mine = *pages_.at(number), &theirs = *other.pages_.at(number);
      for (int64_t i = 0; i < kPageLines; ++i)
        for (const Entry& a : mine.lines[i])
          for (const Entry& b : theirs.lines[i])
            report(number * kPageLines + i, a, b.mask, b.actor,
                   [&](const Actor& actor, int64_t begin, int64_t end) {
                     conflict(actor, b.actor, begin, end);
                   });
    }
  }

  // Forgets everything: at a barrier.
  void clear() {
    last_ = nullptr;
    for (auto& [number, page] : pages_) {
      page->written = false;
      for (auto& entries : page->lines) entries.clear();  // keeps its storage
      spare_.push_back(std::move(page));
    }
    pages_.clear();
  }

 private:
  static constexpr int64_t kLineBytes = 64, kPageLines = 64;

  struct Entry {
    uint64_t mask;  // bit i: byte i of the line
    Actor actor;
  };

  struct Page {
    bool written = false;
    std::array<std::vector<Entry>, kPageLines> lines;
  };

  static uint64_t line_mask(int64_t begin, int64_t end) {
    const int64_t low = begin % kLineBytes, count = end - begin;
    return (count == kLineBytes ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << low;
  }

  template <class Conflict>
  static void report(int64_t line, const Entry& entry, uint64_t mask, const Actor& actor,
                     Conflict&& conflict) {
    const uint64_t both = entry.mask & mask;
    if (both == 0 || !(entry.actor.write || actor.write)) return;
    conflict(entry.actor, line * kLineBytes + std::countr_zero(both),
             (line + 1) * kLineBytes - std::countl_zero(both));
  }

  static void insert(std::vector<Entry>& entries, const Entry& added) {
    for (Entry& entry : entries) {
      if (entry.actor.site.instruction != added.actor.site.instruction ||
          entry.actor.write != added.actor.write)
        continue;
      if (entry.actor.time == added.actor.time) {
        entry.mask |= added.mask;
        return;
      }
      entry.mask &= ~added.mask;
    }
    const auto free =
        std::find_if(entries.begin(), entries.end(), [](const Entry& e) { return e.mask == 0; });
    if (free == entries.end())
      entries.push_back(added);
    else
      *free = added;
  }

  Page& find_or_add(int64_t number) {
    if (last_ != nullptr && last_number_ == number) return *last_;
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) {
      if (spare_.empty()) spare_.push_back(std::make_unique<Page>());
      page = std::move(spare_.back());
      spare_.pop_back();
    }
    last_number_ = number;
    last_ = page.get();
    return *last_;
  }

  std::unordered_map<int64_t, std::unique_ptr<Page>> pages_;
  std::vector<std::unique_ptr<Page>> spare_;
  Page* last_ = nullptr;  // the page of the last record: accesses are mostly contiguous
  int64_t last_number_ = 0;
};

}  // namespace opennpu::race
