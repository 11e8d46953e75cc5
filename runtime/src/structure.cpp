// What a text must keep beyond its encoding: how it nests, and constants that could only trap.
#include <algorithm>
#include <array>
#include <bit>
#include <bitset>

#include "error.h"
#include "program.h"

namespace opennpu {

namespace {

// Operands of one instruction of which only the constants are looked at.
class Constants {
 public:
  Constants(const Program& program, const Decoded& decoded) : program_(program), decoded_(decoded) {}

  int64_t operator[](size_t slot) const { return program_.values[decoded_.first_value + slot]; }

  bool known(size_t slot) const {
    const auto first = program_.terms.begin() + decoded_.first_term;
    return std::none_of(first, first + decoded_.terms, [&](const Term& term) { return term.slot == slot; });
  }

  // A constant outside [low, high].
  bool outside(size_t slot, int64_t low, int64_t high) const {
    return known(slot) && ((*this)[slot] < low || (*this)[slot] > high);
  }

 private:
  const Program& program_;
  const Decoded& decoded_;
};

// The slot of an operand that is not part of a tile.
template <typename I>
constexpr size_t slot(int64_t I::* member) {
  I probe{};
  probe.*member = 1;
  const auto values = std::bit_cast<std::array<int64_t, I::kSlots>>(probe);
  return static_cast<size_t>(std::find(values.begin(), values.end(), 1) - values.begin());
}

constexpr int64_t kMax = INT64_MAX;

// What is wrong with the constants of an instruction; nullptr when nothing is.
const char* constant_problem(const Program& program, const npu_chip_desc& chip, const Decoded& decoded) {
  using namespace isa;
  const Constants at(program, decoded);
  switch (decoded.opcode) {
    case Opcode::SAlu: {
      const auto op = static_cast<Alu>(at[slot(&SAlu::op)]);
      const bool divides = op == Alu::Div || op == Alu::Ceildiv || op == Alu::Mod;
      if (divides && at.known(slot(&SAlu::b)) && at[slot(&SAlu::b)] == 0) return "it divides by 0";
      return nullptr;
    }
    case Opcode::SArg: {
      const auto last = static_cast<int64_t>(program.args.size()) - 1;
      return at.outside(slot(&SArg::index), 0, last) ? "the program has no such argument" : nullptr;
    }
    case Opcode::Loop:
      return at.outside(slot(&Loop::step), 1, kMax) ? "its step is not positive" : nullptr;
    case Opcode::SetFlag:
      return at.outside(slot(&SetFlag::flag), 0, kFlags - 1) ? "there is no such flag" : nullptr;
    case Opcode::WaitFlag:
      return at.outside(slot(&WaitFlag::flag), 0, kFlags - 1) ? "there is no such flag" : nullptr;
    case Opcode::DmaGather:
      return at.outside(slot(&DmaGather::group), 1, kMax) ? "its group is less than 1" : nullptr;
    case Opcode::DmaScatter:
      return at.outside(slot(&DmaScatter::group), 1, kMax) ? "its group is less than 1" : nullptr;
    case Opcode::MxLoad:
      if (at.outside(slot(&MxLoad::k), 0, chip.mx_k)) return "k is not within the chip's mx_k";
      return at.outside(slot(&MxLoad::n), 0, chip.mx_n) ? "n is not within the chip's mx_n" : nullptr;
    case Opcode::VSoftmaxStep:
      return at.outside(slot(&VSoftmaxStep::group), 1, kMax) ? "its group is less than 1" : nullptr;
    default:
      return nullptr;
  }
}

// Walks the text with the stack of open loops and ifs.
class StructureChecker {
 public:
  StructureChecker(const npu_chip_desc& chip, Program& program) : chip_(chip), program_(program) {}

  void run() {
    for (at_ = 0; at_ < program_.text.size(); ++at_) {
      Decoded& decoded = program_.text[at_];
      if (const char* problem = constant_problem(program_, chip_, decoded)) fail(problem);
      check_written_register(decoded);
      nest(decoded);
    }
    at_ = program_.text.empty() ? 0 : program_.text.size() - 1;
    if (!open_.empty()) {
      at_ = open_.back();
      fail("it has no end");
    }
    if (program_.text.empty() || program_.text.back().opcode != isa::Opcode::Halt)
      fail("the text does not end with halt");
  }

 private:
  void nest(Decoded& decoded) {
    switch (decoded.opcode) {
      case isa::Opcode::Loop:
        loop_registers_.set(loop_register(decoded));
        program_.loop_depth = std::max(program_.loop_depth, ++loops_);
        open_.push_back(at_);
        break;
      case isa::Opcode::If:
        open_.push_back(at_);
        break;
      case isa::Opcode::EndLoop:
        loop_registers_.reset(loop_register(close(isa::Opcode::Loop)));
        --loops_;
        break;
      case isa::Opcode::EndIf:
        close(isa::Opcode::If);
        break;
      case isa::Opcode::Halt:
        if (at_ + 1 != program_.text.size()) fail("halt is not the last instruction");
        break;
      default:
        break;
    }
  }

  Decoded& close(isa::Opcode opener) {
    if (open_.empty() || program_.text[open_.back()].opcode != opener) fail("it ends nothing that is open");
    Decoded& begin = program_.text[open_.back()];
    begin.match = static_cast<uint32_t>(at_);
    program_.text[at_].match = static_cast<uint32_t>(open_.back());
    open_.pop_back();
    return begin;
  }

  size_t loop_register(const Decoded& loop) const {
    return static_cast<size_t>(program_.values[loop.first_value + slot(&isa::Loop::rd)]);
  }

  void check_written_register(const Decoded& decoded) {
    const auto fields = isa_row(decoded.opcode)->fields;
    for (size_t i = 0; i < fields.size(); ++i) {
      if (fields[i].kind != isa::Kind::Reg) continue;
      if (loop_registers_[static_cast<size_t>(program_.values[decoded.first_value + i])]) {
        fail("it writes the register that an enclosing loop counts in");
      }
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    const uint32_t location = at_ < program_.text.size() ? program_.text[at_].location : 0;
    throw Error{
        NPU_ERROR_INVALID_PROGRAM,
        "invalid program: " + program_.describe({static_cast<uint32_t>(at_), location}) + ": " + what};
  }

  const npu_chip_desc& chip_;
  Program& program_;
  size_t at_ = 0;
  uint32_t loops_ = 0;
  std::vector<size_t> open_;
  std::bitset<isa::kRegisters> loop_registers_;
};

}  // namespace

void check_structure(const npu_chip_desc& chip, Program& program) { StructureChecker(chip, program).run(); }

}  // namespace opennpu
