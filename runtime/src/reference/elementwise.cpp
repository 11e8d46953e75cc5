// v_fill, v_iota, v_unary, v_binary, v_select: one element at a time.
#include <algorithm>
#include <cmath>

#include "element.h"
#include "instructions.h"
#include "math.h"

namespace opennpu::reference {

namespace {

using isa::Binary;
using isa::Unary;

/// Two's complement, wrapping.
int64_t wrap(uint64_t value) { return static_cast<int64_t>(value); }

/// The operations that integers do in int64; all others convert to f32.
bool has_integer_form(Unary op) {
  return op == Unary::Copy || op == Unary::Neg || op == Unary::Abs || op == Unary::Sign ||
         op == Unary::Square || op == Unary::Relu || op == Unary::Not;
}

int64_t unary(Unary op, int64_t x) {
  const uint64_t u = x;
  switch (op) {
    case Unary::Neg:
      return wrap(-u);
    case Unary::Abs:
      return x < 0 ? wrap(-u) : x;
    case Unary::Sign:
      return (x > 0) - (x < 0);
    case Unary::Square:
      return wrap(u * u);
    case Unary::Relu:
      return x < 0 ? 0 : x;
    case Unary::Not:
      return x == 0;
    default:
      return x;
  }
}

float unary(Unary op, float x) {
  switch (op) {
    case Unary::Copy:
      return x;
    case Unary::Neg:
      return -x;
    case Unary::Abs:
      return std::fabs(x);
    case Unary::Sign:
      return static_cast<float>((x > 0) - (x < 0));
    case Unary::Square:
      return x * x;
    case Unary::Exp:
      return static_cast<float>(math::exp(x));
    case Unary::Log:
      return static_cast<float>(math::log(x));
    case Unary::Sqrt:
      return std::sqrt(x);
    case Unary::Rsqrt:
      return static_cast<float>(1 / std::sqrt(static_cast<double>(x)));
    case Unary::Recip:
      return 1 / x;
    case Unary::Tanh:
      return static_cast<float>(math::tanh(x));
    case Unary::Erf:
      return static_cast<float>(math::erf(x));
    case Unary::Sigmoid:
      return static_cast<float>(math::sigmoid(x));
    case Unary::Silu:
      return static_cast<float>(x * math::sigmoid(x));
    case Unary::Gelu:
      return static_cast<float>(math::gelu(x));
    case Unary::GeluTanh:
      return static_cast<float>(math::gelu_tanh(x));
    case Unary::Relu:
      return x < 0 ? 0 : x;
    case Unary::Sin:
      return static_cast<float>(math::sin(x));
    case Unary::Cos:
      return static_cast<float>(math::cos(x));
    case Unary::Floor:
      return std::floor(x);
    case Unary::Ceil:
      return std::ceil(x);
    case Unary::Round:
      return std::nearbyint(x);
    case Unary::Trunc:
      return std::trunc(x);
    case Unary::Not:
      return x == 0;
  }
  return x;
}

template <class T>
bool compare(Binary op, T a, T b) {
  switch (op) {
    case Binary::Eq:
      return a == b;
    case Binary::Ne:
      return a != b;
    case Binary::Lt:
      return a < b;
    case Binary::Le:
      return a <= b;
    case Binary::Gt:
      return a > b;
    default:
      return a >= b;
  }
}

/// By squaring; a negative exponent gives the integer part of the real power.
int64_t integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
  uint64_t result = 1, square = base;
  for (; exponent > 0; exponent /= 2, square *= square)
    if (exponent % 2) result *= square;
  return wrap(result);
}

int64_t binary(Binary op, int64_t a, int64_t b) {
  const uint64_t u = a, v = b;
  switch (op) {
    case Binary::Add:
      return wrap(u + v);
    case Binary::Sub:
      return wrap(u - v);
    case Binary::Mul:
      return wrap(u * v);
    case Binary::Div:
      return b == 0 ? 0 : b == -1 ? wrap(-u) : a / b;
    case Binary::Mod:
      return b == 0 || b == -1 ? 0 : a % b;
    case Binary::Max:
      return std::max(a, b);
    case Binary::Min:
      return std::min(a, b);
    case Binary::Pow:
      return integer_power(a, b);
    case Binary::And:
      return a & b;
    case Binary::Or:
      return a | b;
    case Binary::Xor:
      return a ^ b;
    default:
      return compare(op, a, b);
  }
}

float binary(Binary op, float a, float b) {
  switch (op) {
    case Binary::Add:
      return a + b;
    case Binary::Sub:
      return a - b;
    case Binary::Mul:
      return a * b;
    case Binary::Div:
      return a / b;
    case Binary::Max:
      return a != a ? a : a > b ? a : b;
    case Binary::Min:
      return a != a ? a : a < b ? a : b;
    case Binary::Pow:
      return static_cast<float>(math::pow(a, b));
    case Binary::Mod:
      return std::fmod(a, b);
    case Binary::And:
      return a != 0 && b != 0;
    case Binary::Or:
      return a != 0 || b != 0;
    case Binary::Xor:
      return (a != 0) != (b != 0);
    default:
      return compare(op, a, b);
  }
}

}  // namespace

void run(Core& core, const isa::VFill& op) {
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    std::byte* dst = element(core, op.dst, i0, i1, i2);
    if (op.is_float != 0)
      store(op.dst.dtype, dst, std::bit_cast<float>(static_cast<uint32_t>(op.value)));
    else
      store(op.dst.dtype, dst, op.value);
  });
}

void run(Core& core, const isa::VIota& op) {
  for_each_element(op.d0, op.d1, op.d2, [&](uint64_t i0, uint64_t i1, uint64_t i2) {
    const int64_t value = wrap(op.base + i0 * op.step0 + i1 * op.step1 + i2 * op.step2);
    store(op.dst.dtype, element(core, op.dst, i0, i1, i2), value);
  });
}

void run(Core& core, const isa::VUnary& op) {
  const auto function = static_cast<Unary>(op.op);
  const bool integer = is_integer(op.a.dtype) && has_integer_form(function);
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    const std::byte* a = element(core, op.a, i0, i1, i2);
    std::byte* dst = element(core, op.dst, i0, i1, i2);
    if (integer)
      store(op.dst.dtype, dst, unary(function, load_integer(op.a.dtype, a)));
    else
      store(op.dst.dtype, dst, unary(function, load_float(op.a.dtype, a)));
  });
}

void run(Core& core, const isa::VBinary& op) {
  const auto function = static_cast<Binary>(op.op);
  const bool integer = is_integer(op.a.dtype) && is_integer(op.b.dtype);
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    const std::byte *a = element(core, op.a, i0, i1, i2), *b = element(core, op.b, i0, i1, i2);
    std::byte* dst = element(core, op.dst, i0, i1, i2);
    if (integer)
      store(op.dst.dtype, dst, binary(function, load_integer(op.a.dtype, a), load_integer(op.b.dtype, b)));
    else
      store(op.dst.dtype, dst, binary(function, load_float(op.a.dtype, a), load_float(op.b.dtype, b)));
  });
}

void run(Core& core, const isa::VSelect& op) {
  for_each_element(op.d0, op.d1, op.d2, [&](int64_t i0, int64_t i1, int64_t i2) {
    const std::byte* cond = element(core, op.cond, i0, i1, i2);
    const isa::Tile& chosen = load_float(op.cond.dtype, cond) != 0 ? op.a : op.b;
    cast(op.dst.dtype, element(core, op.dst, i0, i1, i2), chosen.dtype, element(core, chosen, i0, i1, i2));
  });
}

}  // namespace opennpu::reference
