#include "sequencer.h"

#include <bit>
#include <cstring>
#include <string>

namespace opennpu {

namespace {

// Register arithmetic is two's complement and wraps.
int64_t wrap_add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
int64_t wrap_sub(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
int64_t wrap_mul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

// Rounds towards minus infinity. b is not 0; INT64_MIN / -1 wraps.
int64_t floor_div(int64_t a, int64_t b) {
  if (b == -1) return wrap_sub(0, a);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

int64_t alu(isa::Alu op, int64_t a, int64_t b) {
  using isa::Alu;
  if (b == 0 && (op == Alu::Div || op == Alu::Ceildiv || op == Alu::Mod)) throw Trap{"division by 0"};
  const auto ua = static_cast<uint64_t>(a);
  switch (op) {
    case Alu::Add:
      return wrap_add(a, b);
    case Alu::Sub:
      return wrap_sub(a, b);
    case Alu::Mul:
      return wrap_mul(a, b);
    case Alu::Div:
      return floor_div(a, b);
    case Alu::Ceildiv:
      return b == -1 ? floor_div(a, b) : floor_div(a, b) + (a % b != 0);
    case Alu::Mod:
      return wrap_sub(a, wrap_mul(floor_div(a, b), b));
    case Alu::Min:
      return std::min(a, b);
    case Alu::Max:
      return std::max(a, b);
    case Alu::And:
      return a & b;
    case Alu::Or:
      return a | b;
    case Alu::Shl:
      return static_cast<int64_t>(ua << (b & 63));
    case Alu::Shr:
      return a >> (b & 63);
    case Alu::Lt:
      return a < b;
    case Alu::Le:
      return a <= b;
    case Alu::Eq:
      return a == b;
    case Alu::Ne:
      return a != b;
  }
  throw Trap{"unknown operation"};
}

uint64_t positive(int64_t value) { return value > 0 ? static_cast<uint64_t>(value) : 0; }

size_t flag_index(int64_t flag) {
  if (flag < 0 || flag >= int64_t{isa::kFlags}) throw Trap{"there is no flag " + std::to_string(flag)};
  return static_cast<size_t>(flag);
}

}  // namespace

Sequencer::Sequencer(const npu_chip_desc& chip, const Engine& engine, const Hbm& hbm, CoreMemory memory,
                     unsigned number)
    : engine_(engine), core_{number, chip, memory, hbm, engine.make_state(chip), {}} {}

void Sequencer::begin(const Launch& launch) {
  launch_ = &launch;
  registers_.fill(0);
  registers_[0] = core_.number;
  registers_[1] = core_.chip.cores;
  flags_.fill(0);
  loops_.clear();
  shared_loads_.clear();
  loops_.reserve(launch.program.loop_depth);
  pc_ = 0;
  stationary_ = 0;
  core_.counters = {};
  if (core_.state) core_.state->reset();
}

Site Sequencer::site() const {
  const Decoded& decoded = launch_->program.text[std::min(pc_, launch_->program.text.size() - 1)];
  return {static_cast<uint32_t>(pc_), decoded.location};
}

Error Sequencer::failure(npu_status status, const std::string& what) const {
  return {status,
          launch_->program.describe(site()) + " on core " + std::to_string(core_.number) + ": " + what};
}

Sequencer::State Sequencer::run(uint64_t slice) {
  try {
    const uint64_t left = launch_->max_instructions - core_.counters.instructions;
    const State state = run_slice(std::min(slice, left));
    if (state == State::Running && slice >= left) {
      throw failure(NPU_ERROR_TIMEOUT, "the program ran past the limit of " +
                                           std::to_string(launch_->max_instructions) + " instructions");
    }
    return state;
  } catch (const Trap& trap) {
    throw failure(NPU_ERROR_TRAP, trap.message);
  }
}

Sequencer::State Sequencer::run_slice(uint64_t slice) {
  for (; slice > 0; --slice) {
    ++core_.counters.instructions;
    const State state = step(launch_->program.text[pc_]);
    if (state != State::Running) return state;
  }
  return State::Running;
}

// Runs the instruction at pc_ and moves pc_ on.
Sequencer::State Sequencer::step(const Decoded& decoded) {
  using isa::Opcode;
  switch (decoded.opcode) {
#define X(NAME)                \
  case Opcode::NAME:           \
    issue<isa::NAME>(decoded); \
    break;
    ONPU_ENGINE_INSTRUCTIONS(X)
#undef X
    case Opcode::SMov:
      scalar(resolve<isa::SMov>(decoded));
      break;
    case Opcode::SAlu:
      scalar(resolve<isa::SAlu>(decoded));
      break;
    case Opcode::SLd:
      scalar(resolve<isa::SLd>(decoded));
      break;
    case Opcode::SArg:
      scalar(resolve<isa::SArg>(decoded));
      break;
    case Opcode::Loop:
      begin_loop(resolve<isa::Loop>(decoded), decoded);
      break;
    case Opcode::EndLoop:
      end_loop(decoded);
      break;
    case Opcode::If:
      if (resolve<isa::If>(decoded).cond == 0) pc_ = decoded.match;
      break;
    case Opcode::EndIf:
      break;
    case Opcode::SetFlag:
      set_flag(resolve<isa::SetFlag>(decoded));
      break;
    case Opcode::WaitFlag:
      wait_flag(resolve<isa::WaitFlag>(decoded));
      break;
    case Opcode::Barrier:
      if (launch_->observer) launch_->observer->before(core_, site(), isa::Barrier{});
      if (core_.state) core_.state->before_barrier(core_.memory);
      ++pc_;
      return State::AtBarrier;
    case Opcode::Halt:
      halt();
      return State::Halted;
  }
  ++pc_;
  return State::Running;
}

// Operands are read as 64-bit words in the order of the struct's members.
template <typename I>
I Sequencer::resolve(const Decoded& decoded) const {
  std::array<int64_t, I::kSlots> values;
  std::memcpy(values.data(), launch_->program.values.data() + decoded.first_value, sizeof values);
  const Term* term = launch_->program.terms.data() + decoded.first_term;
  for (const Term* end = term + decoded.terms; term != end; ++term) {
    values[term->slot] = wrap_add(values[term->slot], wrap_mul(registers_[term->reg], term->coefficient));
  }
  return std::bit_cast<I>(values);
}

template <typename I>
void Sequencer::issue(const Decoded& decoded) {
  const I op = resolve<I>(decoded);
  check(op);
  if (launch_->observer) launch_->observer->before(core_, site(), op);
  engine_.execute(core_, op);
  count(op);
}

void Sequencer::scalar(const isa::SMov& op) { registers_[static_cast<size_t>(op.rd)] = op.a; }

void Sequencer::scalar(const isa::SAlu& op) {
  registers_[static_cast<size_t>(op.rd)] = alu(static_cast<isa::Alu>(op.op), op.a, op.b);
}

void Sequencer::scalar(const isa::SLd& op) {
  if (launch_->observer) launch_->observer->before(core_, site(), op);
  int64_t& rd = registers_[static_cast<size_t>(op.rd)];
  const auto address = static_cast<uint64_t>(op.addr);
  if (static_cast<isa::Dtype>(op.dtype) == isa::Dtype::I64) {
    std::memcpy(&rd, core_.hbm.translate(address, 8, false), 8);
  } else {
    int32_t value;
    std::memcpy(&value, core_.hbm.translate(address, 4, false), 4);
    rd = value;
  }
}

void Sequencer::scalar(const isa::SArg& op) {
  registers_[static_cast<size_t>(op.rd)] = launch_->args[static_cast<size_t>(op.index)];
}

void Sequencer::begin_loop(const isa::Loop& op, const Decoded& decoded) {
  if (op.step <= 0)
    throw Trap{"the step of the loop is " + std::to_string(op.step) + ", it must be positive"};
  registers_[static_cast<size_t>(op.rd)] = op.lo;
  if (op.lo < op.hi) {
    loops_.push_back({op.lo, op.hi, op.step});
  } else {
    pc_ = decoded.match;
  }
}

void Sequencer::end_loop(const Decoded& decoded) {
  OpenLoop& loop = loops_.back();
  const bool over = __builtin_add_overflow(loop.value, loop.step, &loop.value) || loop.value >= loop.hi;
  if (over) {
    loops_.pop_back();
    return;
  }
  const Decoded& begin = launch_->program.text[decoded.match];
  constexpr size_t kRd = 0;
  registers_[static_cast<size_t>(launch_->program.values[begin.first_value + kRd])] = loop.value;
  pc_ = decoded.match;
}

// The engines run in program order, so a flag is a counter that never waits.
void Sequencer::set_flag(const isa::SetFlag& op) {
  if (launch_->observer) launch_->observer->before(core_, site(), op);
  ++flags_[flag_index(op.flag)];
}

void Sequencer::wait_flag(const isa::WaitFlag& op) {
  if (launch_->observer) launch_->observer->before(core_, site(), op);
  int64_t& flag = flags_[flag_index(op.flag)];
  if (flag == 0) throw Trap{"deadlock: no earlier set_flag for flag " + std::to_string(op.flag)};
  --flag;
}

void Sequencer::halt() {
  if (launch_->observer) launch_->observer->before(core_, site(), isa::Halt{});
  for (size_t i = 0; i < flags_.size(); ++i) {
    if (flags_[i] != 0) {
      throw Trap{"flag " + std::to_string(i) + " is still " + std::to_string(flags_[i]) +
                 " at halt: a set_flag without its wait_flag"};
    }
  }
}

void Sequencer::check(const isa::DmaLoad& op) {
  if (!is_shared(op)) return;
  if (shared_loads_.size() == kMaxSharedLoads) {
    throw Trap{"more than " + std::to_string(kMaxSharedLoads) + " shared loads between two barriers"};
  }
  shared_loads_.emplace_back(site(), op, sharing_cores(op, core_.number, core_.chip));
}

// What has executed stayed within memory, so the products below fit.
void Sequencer::count(const isa::DmaLoad& op) {
  core_.counters.bytes_loaded += positive(op.n0) * positive(op.n1) * positive(op.n2) * positive(op.bytes);
}
void Sequencer::count(const isa::DmaStore& op) {
  core_.counters.bytes_stored += positive(op.n0) * positive(op.n1) * positive(op.n2) * positive(op.bytes);
}
void Sequencer::count(const isa::DmaGather& op) {
  core_.counters.bytes_loaded += positive(op.count) * positive(op.rows) * positive(op.row_bytes);
}
void Sequencer::count(const isa::DmaScatter& op) {
  core_.counters.bytes_stored += positive(op.count) * positive(op.rows) * positive(op.row_bytes);
}
void Sequencer::count(const isa::MxLoad& op) { stationary_ = positive(op.k) * positive(op.n); }
void Sequencer::count(const isa::MxMul& op) { core_.counters.macs += positive(op.rows) * stationary_; }

}  // namespace opennpu
