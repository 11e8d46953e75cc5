// The text of a program: a walk over the words by the table of instructions.
#include <array>
#include <cstring>

#include "error.h"
#include "program.h"

namespace opennpu {

const isa::Instruction* isa_row(isa::Opcode opcode) {
  static const auto rows = [] {
    std::array<const isa::Instruction*, 256> out{};
    for (const isa::Instruction& row : isa::kInstructions) out[static_cast<uint8_t>(row.opcode)] = &row;
    return out;
  }();
  return rows[static_cast<uint8_t>(opcode)];
}

namespace {

// Reads the words of one instruction and appends its operands to the program.
class InstructionDecoder {
 public:
  InstructionDecoder(std::span<const std::byte> text, size_t first_word, Program& program)
      : text_(text), at_(first_word), end_(first_word), program_(program) {}

  // Returns the index of the word after the instruction.
  size_t decode() {
    const uint64_t head = read_head();
    Decoded out{};
    out.opcode = row_->opcode;
    out.location = static_cast<uint32_t>(head >> 32);
    out.first_value = static_cast<uint32_t>(program_.values.size());
    out.first_term = static_cast<uint32_t>(program_.terms.size());
    if (out.location >= std::max<size_t>(program_.locations.size(), 1)) {
      fail("location " + std::to_string(out.location) + " is not in the table");
    }
    for (slot_ = 0; slot_ < row_->fields.size(); ++slot_) read_field(row_->fields[slot_]);
    if (at_ != end_) fail("its fields end before its words do");
    check_floats(out.first_value);
    out.terms = static_cast<uint16_t>(program_.terms.size() - out.first_term);
    program_.text.push_back(out);
    return end_;
  }

 private:
  uint64_t read_head() {
    end_ = at_ + 1;
    const uint64_t head = word();
    row_ = isa_row(static_cast<isa::Opcode>(head & 0xff));
    if (row_ == nullptr) fail("unknown opcode " + std::to_string(head & 0xff));
    const uint64_t words = head >> 8 & 0xff;
    if (head >> 16 & 0xffff) fail("reserved bits are not zero");
    if (words == 0 || words > text_.size() / 8 - (at_ - 1)) fail("its words run past the text");
    end_ = at_ - 1 + words;
    return head;
  }

  void read_field(const isa::Field& field) {
    const uint64_t constant = word();
    if (field.kind == isa::Kind::Reg && constant >= isa::kRegisters) {
      fail(std::string(field.name) + " is not a register: " + std::to_string(constant));
    }
    if (field.enum_size != 0 && (constant >= field.enum_size || !(field.allowed >> constant & 1))) {
      fail(std::string(field.name) + " cannot be " + std::to_string(constant));
    }
    program_.values.push_back(static_cast<int64_t>(constant));
    if (field.kind == isa::Kind::Value) read_terms(field);
  }

  void read_terms(const isa::Field& field) {
    const uint64_t list = word();
    const uint64_t count = list & 0xff;
    if (count > isa::kMaxTerms || list >> 8 * (count + 1) != 0) {
      fail(std::string(field.name) + " has a malformed list of registers");
    }
    for (uint64_t i = 0; i < count; ++i) {
      program_.terms.push_back({static_cast<uint16_t>(slot_), static_cast<uint8_t>(list >> 8 * (i + 1)),
                                static_cast<int64_t>(word())});
    }
  }

  void check_floats(size_t first_value) {
    for (size_t slot = 0; slot < row_->fields.size(); ++slot) {
      const isa::Field& field = row_->fields[slot];
      const bool is_float =
          field.f32 == isa::kFloat ||
          (field.f32 >= 0 && program_.values[first_value + static_cast<size_t>(field.f32)] != 0);
      if (is_float && program_.values[first_value + slot] >> 32 != 0) {
        fail(std::string(field.name) + " is not the bits of an f32");
      }
    }
  }

  uint64_t word() {
    if (at_ == end_) fail("its words end before its fields do");
    uint64_t value;
    std::memcpy(&value, text_.data() + 8 * at_++, sizeof value);
    return value;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error{NPU_ERROR_INVALID_PROGRAM,
                "invalid program: instruction " + std::to_string(program_.text.size()) +
                    (row_ ? std::string(" (") + row_->name + ")" : "") + ": " + what};
  }

  std::span<const std::byte> text_;
  size_t at_, end_;  // words
  size_t slot_ = 0;
  const isa::Instruction* row_ = nullptr;
  Program& program_;
};

}  // namespace

void decode_text(std::span<const std::byte> text, const npu_chip_desc& chip, Program& program) {
  for (size_t at = 0; at < text.size() / 8;) at = InstructionDecoder(text, at, program).decode();
  check_structure(chip, program);
}

}  // namespace opennpu
