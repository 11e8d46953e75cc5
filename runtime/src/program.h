// A program as the sequencer runs it: decoded and checked once, at load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine.h"

namespace opennpu {

// The table's row of an instruction; nullptr for a number that is none.
const isa::Instruction* isa_row(isa::Opcode opcode);

// A register that an operand adds: values[slot] += coefficient · register.
struct Term {
  uint16_t slot;
  uint8_t reg;
  int64_t coefficient;
};

// One instruction. Its operands are the constants at `first_value` with the terms added.
struct Decoded {
  isa::Opcode opcode;
  uint16_t terms;
  uint32_t first_term;
  uint32_t first_value;
  uint32_t location;
  uint32_t match;  // loop, if: index of its end; end_loop: index of its loop
};

enum class ArgKind : uint32_t { Scalar = 0, Read = 1, Write = 2 };

struct Program {
  std::vector<ArgKind> args;
  std::vector<Decoded> text;
  std::vector<int64_t> values;
  std::vector<Term> terms;
  std::vector<std::string> locations;
  uint32_t loop_depth = 0;  // of the deepest loop nest

  // The instruction for a message: `instruction 12 (v_binary) of model.norm`.
  std::string describe(const Site& site) const;
};

// Parses and checks an image (docs/architecture.md). Throws Error: NPU_ERROR_INVALID_PROGRAM or
// NPU_ERROR_WRONG_CHIP.
Program parse_image(std::span<const std::byte> image, const npu_chip_desc& chip);

// Decodes the text of an image into `program`, whose args and locations are set. Throws Error.
void decode_text(std::span<const std::byte> text, const npu_chip_desc& chip, Program& program);

// The rules that one decoded instruction or the whole text must keep beyond its encoding:
// nesting, constants that would always trap, loop registers. Fills `match` and `loop_depth`. Throws Error.
void check_structure(const npu_chip_desc& chip, Program& program);

}  // namespace opennpu
